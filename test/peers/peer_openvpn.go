// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// openvpn is one peer to another in tap mode over UDP, with self-signed
// certificates that know each other, and in user space: its kernel module does
// not bridge.
func openvpn() *peer {
	p := &peer{name: "openvpn", title: "OpenVPN tap, AES-256-GCM", mtu: 1500}
	var root unpacked
	var certs [2]certificate
	p.install = func(ctx context.Context, b *bench) (version string, err error) {
		if root, err = b.debian(ctx, "openvpn"); err != nil {
			return "", err
		}
		p.env = root.env()
		for i := range certs {
			if certs[i], err = newCertificate(); err != nil {
				return "", err
			}
		}
		return root.version, nil
	}
	p.prepare = func(r *rig) error {
		for i, site := range []string{"a", "b"} {
			own, other, role := wanAddrA, wanAddrB, "tls-client"
			if i == 1 {
				own, other, role = other, own, "tls-server\ndh none"
			}
			cert, err := r.file("openvpn-"+site+".crt", certs[i].cert)
			if err != nil {
				return err
			}
			key, err := r.file("openvpn-"+site+".key", certs[i].key)
			if err != nil {
				return err
			}
			if _, err := r.file("openvpn-"+site+".conf", fmt.Sprintf(`mode p2p
dev tap0
dev-type tap
proto udp4
local %s
remote %s 1194
port 1194
%s
cert %s
key %s
peer-fingerprint %s
data-ciphers AES-256-GCM
cipher AES-256-GCM
sndbuf 4194304
rcvbuf 4194304
fast-io
connect-retry 1
disable-dco
verb 1
`, own, other, role, cert, key, certs[1-i].fingerprint)); err != nil {
				return err
			}
		}
		return r.addTAPs("tap0")
	}
	p.start = func(r *rig) error {
		_, errB := r.daemon(r.gwB, root.program("usr/sbin/openvpn"), "--config", r.dir+"/openvpn-b.conf")
		_, errA := r.daemon(r.gwA, root.program("usr/sbin/openvpn"), "--config", r.dir+"/openvpn-a.conf")
		return errors.Join(errA, errB)
	}
	return p
}

// certificate is a self-signed one, in PEM.
type certificate struct{ cert, key, fingerprint string }

func newCertificate() (certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(7 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return certificate{}, err
	}
	var hex []string
	for _, b := range sha256.Sum256(der) {
		hex = append(hex, fmt.Sprintf("%02X", b))
	}
	return certificate{
		cert:        string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		fingerprint: strings.Join(hex, ":"),
	}, nil
}
