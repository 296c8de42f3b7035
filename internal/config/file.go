// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

// maxFileBytes is far more than every key with 64 peers needs.
const maxFileBytes = 64 << 10

// key is one top-level key or table of the file.
type key struct {
	name  string
	line  int
	value any
}

// read returns the keys of a file in their order; nil when there is no file.
func read(path string) ([]key, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, explain(path, err)
	case !info.Mode().IsRegular(): // to open a FIFO would block
		return nil, fmt.Errorf("%s: not a regular file (name a TOML file)", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, explain(path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, explain(path, err)
	}
	return parse(path, text)
}

// explain says what to do when the system does not let us read or make the file
// at path.
func explain(path string, err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = errno // without the name of the call and of a file half made
	}
	remedy := "choose another with --config"
	switch {
	case errors.Is(err, fs.ErrPermission):
		remedy = "run as root, or " + remedy
	case errors.Is(err, syscall.EROFS):
		remedy = fmt.Sprintf("make %s writable, or %s", filepath.Dir(path), remedy)
	case errors.Is(err, syscall.ENOSPC):
		remedy = "free some space, or " + remedy
	}
	return fmt.Errorf("config file %s: %w (%s)", path, err, remedy)
}

// parse splits TOML into keys. Syntax errors say path, line and column.
func parse(path string, text []byte) ([]key, error) {
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("%s: more than %d bytes (this is no l2bridge config)", path, maxFileBytes)
	}
	if bytes.HasPrefix(text, []byte("\ufeff")) { // of which an editor shows nothing
		return nil, fmt.Errorf("%s:1:1: a byte order mark (save the file as UTF-8 without one)", path)
	}
	values := map[string]any{}
	if err := toml.Unmarshal(text, &values); err != nil {
		if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
			line, column := at.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s (want TOML: key = value)", path, line, column,
				printable(strings.TrimPrefix(at.Error(), "toml: ")))
		}
		return nil, fmt.Errorf("%s: %s", path, printable(err.Error()))
	}

	// A struct without fields knows no key, so the strict decoder reports
	// each one with its place: the only public way to a key's line.
	places := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	var unknown *toml.StrictMissingError
	keys := []key{}
	if !errors.As(places.Decode(&struct{}{}), &unknown) {
		return keys, nil
	}
	for _, e := range unknown.Errors {
		line, _ := e.Position()
		name := strings.Join(e.Key(), ".")
		keys = append(keys, key{name, line, values[name]})
	}
	return keys, nil
}

// printable puts ? for what a terminal should not see of a parser's message.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// String returns the value as an error message shows it.
func (k key) String() string {
	switch k.value.(type) {
	case nil, map[string]any: // nil: the table of a dotted name
		return "[table]"
	}
	return fmt.Sprint(k.value)
}

// texts returns the setting that k names and what the file gives it.
func (k key) texts() (*Setting, []string, error) {
	root, _, dotted := strings.Cut(k.name, ".")
	_, table := k.value.(map[string]any)
	if root == "guard" || root == "site" && (dotted || table) {
		return nil, nil, errors.New("reserved for a later version (take it out)")
	}
	s := settingOf(k.name)
	if s == nil {
		if near := nearest(k.name); near != "" {
			return nil, nil, fmt.Errorf("unknown key (did you mean %s?)", near)
		}
		var all []string
		for _, s := range settings {
			all = append(all, s.Key)
		}
		return nil, nil, fmt.Errorf("unknown key (the keys are %s)", strings.Join(all, ", "))
	}
	bad := fmt.Errorf("want %v", s.form)
	switch v := k.value.(type) {
	case string:
		if s.form == word || s.form == wordOrNumber {
			return s, []string{v}, nil
		}
	case int64:
		if s.form == number || s.form == wordOrNumber {
			return s, []string{strconv.FormatInt(v, 10)}, nil
		}
	case []any:
		if s.form != words && s.form != command {
			return nil, nil, bad
		}
		texts := []string{}
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, nil, bad
			}
			texts = append(texts, text)
		}
		return s, texts, nil
	}
	return nil, nil, bad
}

// nearest returns the key that name most likely means, or "".
func nearest(name string) string {
	if len(name) > 32 {
		return ""
	}
	best, least := "", 3 // two slips at most
	for _, s := range settings {
		for _, known := range []string{s.Key, s.Flag} {
			if d := slips(strings.ToLower(name), known); known != "" && d < least {
				best, least = s.Key, d
			}
		}
	}
	return best
}

// slips is the Levenshtein distance.
func slips(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
