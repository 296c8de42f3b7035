// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// tinc in switch mode. Debian has 1.0, whose default cipher is Blowfish; AES is
// faster where processors have it.
func tinc() *peer {
	p := &peer{name: "tinc", title: "tinc, switch mode, AES-128-CBC", mtu: 1500}
	var root unpacked
	p.install = func(ctx context.Context, b *bench) (version string, err error) {
		root, err = b.debian(ctx, "tinc")
		p.env = root.env()
		return root.version, err
	}
	sites := []string{"a", "b"}
	addrs := map[string]string{"a": wanAddrA, "b": wanAddrB}
	p.prepare = func(r *rig) error {
		hosts := make(map[string]string)
		for _, site := range sites {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				return err
			}
			private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
			public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
			if _, err := r.file("tinc-"+site+"/rsa_key.priv", string(private)); err != nil {
				return err
			}
			hosts[site] = fmt.Sprintf("Address = %s 655\nCipher = aes-128-cbc\nCompression = 0\n%s", addrs[site], public)
		}
		for i, site := range sites {
			if _, err := r.file("tinc-"+site+"/tinc.conf", fmt.Sprintf(`Name = %s
ConnectTo = %s
Mode = switch
DeviceType = tap
Interface = tap0
AddressFamily = ipv4
UDPRcvBuf = 4194304
UDPSndBuf = 4194304
MaxTimeout = 1
PingTimeout = 5
`, site, sites[1-i])); err != nil {
				return err
			}
			for host, text := range hosts {
				if _, err := r.file("tinc-"+site+"/hosts/"+host, text); err != nil {
					return err
				}
			}
		}
		return r.addTAPs("tap0")
	}
	p.start = func(r *rig) error {
		var errs []error
		for _, site := range sites {
			dir := r.dir + "/tinc-" + site
			_, err := r.daemon(map[string]string{"a": r.gwA, "b": r.gwB}[site], root.program("usr/sbin/tincd"),
				"--no-detach", "--config="+dir, "--pidfile="+dir+"/pid", "--debug=1")
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	return p
}
