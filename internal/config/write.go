// SPDX-License-Identifier: Apache-2.0

package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Reference is the commented file that documents every key. Each key stands
// there at its default, commented out as "#key = value".
//
//go:embed reference.toml
var Reference string

var referenceKey = regexp.MustCompile(`(?m)^#([a-z_]+) = .*$`)

// TOML writes every key with its value; it parses back to the same Config. A site
// that has no name, which no file can say, gets no line.
func (c *Config) TOML() string {
	var b strings.Builder
	for i := range settings {
		if s := &settings[i]; s.Key != "site" || c.Site != "" {
			fmt.Fprintln(&b, c.line(s))
		}
	}
	return b.String()
}

// file writes the reference with the keys that were given filled in.
func (c *Config) file() string {
	return referenceKey.ReplaceAllStringFunc(Reference, func(line string) string {
		s := settingOf(referenceKey.FindStringSubmatch(line)[1])
		if _, given := c.Places[s.Key]; !given {
			return line
		}
		return c.line(s)
	})
}

// line writes one key in ASCII. Checked values have no control characters: Go's
// quotes of the rest are TOML's.
func (c *Config) line(s *Setting) string {
	var text string
	switch v := s.value(c).(type) {
	case string:
		text = strconv.Quote(v)
	case mask:
		text = fmt.Sprintf("%#x", uint16(v))
	case []string:
		for i := range v {
			v[i] = strconv.QuoteToASCII(v[i])
		}
		text = "[" + strings.Join(v, ", ") + "]"
	default:
		text = fmt.Sprint(v)
	}
	return s.Key + " = " + text
}

// Draft is a config file about to be. Exactly one of Commit and Discard ends
// it.
type Draft struct {
	path string
	temp string // "" when the file was there before: it is kept
}

// Prepare readies c, as given by flags, to become the file c.File, so that
// what can go wrong goes wrong before anything else is changed.
//
// A file that is there already is never rewritten: it is its owner's. It must
// then say what the flags say; only flags for the keys in thisRun may differ,
// as they hold for this run. Commit leaves such a file as it is.
func Prepare(c Config, thisRun ...string) (*Draft, error) {
	d := &Draft{path: c.File}
	if c.FileExists {
		return d, c.agrees(thisRun)
	}
	if _, err := os.Lstat(d.path); err == nil {
		return nil, fmt.Errorf("config file %s: a symbolic link to nothing (make what it points to, or take it away)", d.path)
	}
	dir := filepath.Dir(d.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, explain(d.path, err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(d.path)+".*")
	if err != nil {
		return nil, explain(d.path, err)
	}
	d.temp = f.Name()
	_, err = f.WriteString(c.file())
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		d.Discard()
		return nil, explain(d.path, err)
	}
	return d, nil
}

// agrees reports a flag that the file does not bear out.
func (c *Config) agrees(except []string) error {
	file, err := Load(c.Paths, nil)
	if err != nil {
		return err
	}
	for i := range settings {
		s := &settings[i]
		place := c.Places[s.Key]
		if place.Flag == "" || slices.Contains(except, s.Key) || reflect.DeepEqual(s.value(c), s.value(&file)) {
			continue
		}
		return fmt.Errorf("%s: %s exists, is never rewritten and says otherwise (write %s there, or leave the flag out)",
			place.Flag, c.File, c.line(s))
	}
	return nil
}

// Commit puts the file in its place: whole or not at all, on the disk when
// Commit returns, and never over another file or through a symbolic link.
func (d *Draft) Commit() error {
	if d.temp == "" {
		return nil
	}
	defer d.Discard()
	// link(2), unlike rename(2), fails when there is something at the path.
	if err := os.Link(d.temp, d.path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("config file %s: made by somebody else meanwhile, and kept (see whether it is right)", d.path)
	} else if err != nil {
		return explain(d.path, err)
	}
	dir, err := os.Open(filepath.Dir(d.path))
	if err != nil {
		return explain(d.path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return explain(d.path, err)
	}
	return nil
}

// Discard leaves the disk as it was. After Commit it does nothing.
func (d *Draft) Discard() {
	if d.temp != "" {
		os.Remove(d.temp)
		d.temp = ""
	}
}
