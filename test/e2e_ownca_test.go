// SPDX-License-Identifier: Apache-2.0

//go:build linux

package test_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l2bridge/l2bridge/test/lab"
)

// authority is a CA as an operator runs it: openssl, in a directory.
type authority struct {
	t   *testing.T
	dir string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{t, t.TempDir()}
	a.file("ca.cnf", `[ca]
default_ca = this
[this]
database = %[1]s/index.txt
crlnumber = %[1]s/crlnumber
certificate = %[1]s/ca.pem
private_key = %[1]s/ca.key
default_md = sha256
default_crl_days = 30
new_certs_dir = %[1]s
rand_serial = yes
unique_subject = no
policy = any
[any]
commonName = supplied
`, a.dir)
	a.file("index.txt", "")
	a.file("crlnumber", "01\n")
	a.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Company CA",
		"-days", "30", "-keyout", "ca.key", "-out", "ca.pem")
	a.list()
	return a
}

func (a authority) file(name, format string, args ...any) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), fmt.Appendf(nil, format, args...), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a authority) openssl(args ...string) {
	a.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = a.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("openssl %s: %v\n%s", args, err, out)
	}
}

// list writes what is revoked to crl.pem, whole or not at all.
func (a authority) list() {
	a.t.Helper()
	a.openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.new")
	if err := os.Rename(filepath.Join(a.dir, "crl.new"), filepath.Join(a.dir, "crl.pem")); err != nil {
		a.t.Fatal(err)
	}
}

// key makes a site's key.
func (a authority) key(site string, kind ...string) {
	a.t.Helper()
	a.openssl(append([]string{"genpkey", "-out", site + ".key"}, kind...)...)
}

const certLife = 10 * 24 * time.Hour // for which certificates hold as a rule

// certify makes a certificate of a site's key, with these names, and returns when it
// ends.
func (a authority) certify(site, names string, life time.Duration) (end time.Time) {
	a.t.Helper()
	end = time.Now().Add(life).Truncate(time.Second)
	a.openssl("req", "-new", "-key", site+".key", "-subj", "/CN="+site, "-out", site+".csr")
	a.file(site+".ext", "extendedKeyUsage = clientAuth, serverAuth\nsubjectAltName = %s\n", names)
	a.openssl("ca", "-config", "ca.cnf", "-batch", "-notext", "-in", site+".csr",
		"-enddate", end.UTC().Format("20060102150405Z"), "-extfile", site+".ext", "-out", site+".new")
	if err := os.Rename(filepath.Join(a.dir, site+".new"), filepath.Join(a.dir, site+".pem")); err != nil {
		a.t.Fatal(err)
	}
	return end
}

// configure gives a site the config with which it runs as the one of that name. One
// without hosts is bare.
func (a authority) configure(site *lab.Site, name, more string) {
	a.t.Helper()
	if len(site.Hosts) == 0 {
		more += "\nbridge = \"\""
	}
	text := fmt.Sprintf(`ca_file = "%[1]s/ca.pem"
cert_file = "%[1]s/%[2]s.pem"
key_file = "%[1]s/%[2]s.key"
crl_file = "%[1]s/crl.pem"
%[3]s
`, a.dir, name, more)
	if err := os.WriteFile(filepath.Join(filepath.Dir(site.Socket()), "config.toml"), []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// A company's own CA, by openssl, makes two members, of two kinds of keys. Nobody
// founds or joins anything. A certificate is renewed under a running site, and one is
// revoked: its session ends, and no other begins.
func TestOwnCA(t *testing.T) {
	t.Parallel()
	s := lab.TwoSites(t, lab.Options{})
	ca := newAuthority(t)
	ca.key("a", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	ca.key("b", "-algorithm", "ED25519")
	ca.key("printer", "-algorithm", "RSA")
	ca.certify("a", "URI:l2bridge://corp/a", certLife)
	ca.certify("b", "URI:l2bridge://corp/b,DNS:b.example", certLife)
	ca.certify("printer", "DNS:printer.example", certLife)

	ca.configure(s.A, "a", "")
	ca.configure(s.B, "b", fmt.Sprintf("peers = [%q]", s.A.Addr4+":4433"))
	upA, upB := s.A.Up(), s.B.Up()
	s.A.WaitUp(1)
	s.B.WaitUp(1)
	status, err := s.B.Status()
	if err != nil || status.Network != "corp" || status.Site != "b" || len(status.Peers) != 1 || status.Peers[0].Site != "a" {
		t.Errorf("status: %+v, %v", status, err)
	}
	printer := s.A.Instance("printer")
	ca.configure(printer, "printer", "")
	for _, tt := range []struct {
		site *lab.Site
		args []string
		code int
		want string
	}{
		{s.A, []string{"invite", "x"}, 4, "a CA of your own"},
		{s.A, []string{"init"}, 1, "l2bridge up"},
		{s.A, []string{"join", "--peer", "192.0.2.1:4433"}, 1, "l2bridge up"},
		{s.A, []string{"up", "--key-file", ""}, 1, "belong together"},
		{printer, []string{"up"}, 1, "has 0 URI names"},
	} {
		if _, err := tt.site.CLI(tt.args...); lab.ExitCode(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want exit status %d and %q", tt.args, err, tt.code, tt.want)
		}
	}

	ca.certify("b", "URI:l2bridge://corp/b", certLife)
	upB.WaitOutput(outageWait, `msg="certificate files taken"`)
	if peers, err := s.A.Peers(); err != nil || len(peers) != 1 || peers[0].State != "up" {
		t.Errorf("after the renewal: %+v, %v", peers, err)
	}

	// All that b has, and has had.
	ca.openssl("ca", "-config", "ca.cnf", "-revoke", "b.pem")
	if err := upB.Stop(); err != nil {
		t.Fatal(err)
	}
	upB = s.B.Up()
	s.A.WaitUp(1)
	ca.list()
	upA.WaitOutput(outageWait, "membership is revoked")
	lab.Wait(t, outageWait, "the peer is gone", func() error {
		peers, err := s.A.Peers()
		if err == nil && len(peers) == 1 && peers[0].State == "up" {
			err = fmt.Errorf("%+v", peers)
		}
		return err
	})
	upB.WaitOutput(outageWait, "refused us")
}

// A certificate that ends while its site is connected ends the session, at both ends
// with a word; no frame passes until there is a new one in its file.
func TestOwnCAEnds(t *testing.T) {
	t.Parallel()
	s := lab.TwoSites(t, lab.Options{Hosts: 1})
	ca := newAuthority(t)
	ca.key("a", "-algorithm", "ED25519")
	ca.key("b", "-algorithm", "ED25519")
	ca.certify("a", "URI:l2bridge://corp/a", certLife)
	certify := func(life time.Duration) (end time.Time) { return ca.certify("b", "URI:l2bridge://corp/b", life) }
	ca.configure(s.A, "a", "")
	ca.configure(s.B, "b", fmt.Sprintf("peers = [%q]", s.A.Addr4+":4433"))
	src, wire := calls(t, s.B.Hosts[0]), s.A.Hosts[0].Wire(hostLink)
	passes := func() error {
		for frame := range arrivals(t, wire, time.Now().Add(100*time.Millisecond)) {
			if saidBy(src)(frame) {
				return nil
			}
		}
		return errors.New("nothing of b is heard")
	}

	life := 8 * time.Second
	end := certify(life)
	upA, upB := s.A.Up(), s.B.Up()
	lab.Wait(t, time.Minute, "frames of b pass", func() error {
		if time.Now().After(end) { // the machine is slow
			life *= 2
			end = certify(life)
		}
		return passes()
	})
	upA.WaitOutput(time.Until(end)+outageWait, `msg="peer down"`)
	upB.WaitOutput(outageWait, "its certificate is out of date")
	wire.Drain()
	silence(t, wire, "a", src, time.Second)
	for _, p := range []*lab.Process{upA, upB} {
		var lines []string
		for line := range strings.Lines(p.Output()) {
			if strings.Contains(line, `msg="peer down"`) {
				lines = append(lines, line)
			}
		}
		if len(lines) != 1 || !strings.Contains(lines[0], `certificate of site \"b\" has ended`) {
			t.Errorf("want one line that says what has ended:\n%s", strings.Join(lines, ""))
		}
	}

	certify(certLife)
	lab.Wait(t, meshWait, "frames of b pass again", passes)
	upB.WaitOutput(outageWait, `msg="certificate files taken"`)
}
