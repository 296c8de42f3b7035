// SPDX-License-Identifier: Apache-2.0

// Command audit says what a program is made of: it checks the licences of all
// modules that are built into it, and writes a bill of materials, CycloneDX 1.6.
//
//	audit PROGRAM BILL SOURCES
//
// SOURCES is the directory of the program's go.mod.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are the licences that Apache-2.0 goes together with, and that ask for no
// more than to be named.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// certain is how much of a licence's file must be the licence, in percent.
const certain = 75

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: audit PROGRAM BILL SOURCES")
		os.Exit(2)
	}
	if err := audit(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		os.Exit(1)
	}
}

// The part of CycloneDX that is written.
type (
	bill struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type     string    `json:"type"`
		Ref      string    `json:"bom-ref"`
		Name     string    `json:"name"`
		Version  string    `json:"version"`
		PURL     string    `json:"purl"`
		Hashes   []hash    `json:"hashes,omitempty"`
		Licences []licence `json:"licenses"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	licence struct {
		Licence struct {
			ID string `json:"id"`
		} `json:"license"`
	}
)

func audit(program, path, sources string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	dirs, err := moduleDirs(sources)
	if err != nil {
		return err
	}
	b := bill{Format: "CycloneDX", Spec: "1.6", Version: 1}
	var errs []error
	take := func(m *debug.Module, kind string) component {
		c, err := describe(m, kind, dirs[m.Path])
		errs = append(errs, err)
		return c
	}
	b.Metadata.Component = take(&info.Main, "application")
	b.Components = append(b.Components, library("std", strings.TrimPrefix(info.GoVersion, "go"), "BSD-3-Clause"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			errs = append(errs, fmt.Errorf("%s: it is replaced by %s (a release is built of what its name says)", m.Path, m.Replace.Path))
		}
		b.Components = append(b.Components, take(m, "library"))
	}
	for _, c := range b.Components {
		fmt.Printf("%-50s %-40s %s\n", c.Name, c.Version, c.names())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// moduleDirs returns where the sources of all modules are.
func moduleDirs(sources string) (map[string]string, error) {
	out, err := exec.Command("go", "-C", sources, "list", "-m", "-json", "all").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	dirs := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var m struct{ Path, Dir string }
		if err := d.Decode(&m); err != nil {
			return nil, err
		}
		dirs[m.Path] = m.Dir
	}
	return dirs, nil
}

// describe returns what is said of a module, and an error if its licence is not
// known or not allowed.
func describe(m *debug.Module, kind, dir string) (component, error) {
	ids, err := licences(dir)
	c := library(m.Path, m.Version, ids...)
	c.Type = kind
	if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
		if raw, err := base64.StdEncoding.DecodeString(sum); err == nil {
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
		}
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", m.Path, err)
	}
	for _, id := range ids {
		if !slices.Contains(allowed, id) {
			return c, fmt.Errorf("%s: its licence is %s (allowed are %s)", m.Path, id, strings.Join(allowed, ", "))
		}
	}
	return c, nil
}

func library(path, version string, ids ...string) component {
	purl := "pkg:golang/" + path + "@" + version
	c := component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl, Licences: []licence{}}
	for _, id := range ids {
		var l licence
		l.Licence.ID = id
		c.Licences = append(c.Licences, l)
	}
	return c
}

func (c component) names() string {
	var ids []string
	for _, l := range c.Licences {
		ids = append(ids, l.Licence.ID)
	}
	return strings.Join(ids, ", ")
}

var licenceFile = regexp.MustCompile(`^(?i)(licen[cs]e|copying)([.-].*)?$`)

// licences returns those that the files of a module are.
func licences(dir string) (ids []string, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("sources: %w (go mod download brings them)", err)
	}
	for _, f := range files {
		if f.IsDir() || !licenceFile.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		cover := licensecheck.Scan(text)
		if cover.Percent < certain {
			return nil, fmt.Errorf("%s is of no licence that is known (%.0f %% of it)", f.Name(), cover.Percent)
		}
		for _, m := range cover.Match {
			if !slices.Contains(ids, m.ID) {
				ids = append(ids, m.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("it has no licence's file")
	}
	return ids, nil
}
