// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const traces = `File: l2bridge
Type: cpu
Time: 2026-11-25 18:00:00 UTC
Duration: 5s, Total samples = 40ms (0.8%)
-----------+-------------------------------------------------------
     1.50ms   runtime.memmove
             github.com/l2bridge/l2bridge/internal/tap.(*stream).Send (inline)
             main.main
-----------+-------------------------------------------------------
 thread:  "a b"
       10ms   main.f[go.shape.struct { a/b }]
             main.main
-----------+-------------------------------------------------------
      500ms   runtime.mcall
-----------+-------------------------------------------------------
`

func TestParseTraces(t *testing.T) {
	got, err := parseTraces(strings.NewReader(traces))
	if err != nil {
		t.Fatal(err)
	}
	want := []stack{
		{1.5, []string{"main.main", "github.com/l2bridge/l2bridge/internal/tap.(*stream).Send", "runtime.memmove"}},
		{10, []string{"main.main", "main.f[go.shape.struct { a/b }]"}},
		{500, []string{"runtime.mcall"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(stack{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseTraces(strings.NewReader("Type: cpu\n-----+-----\n")); !errors.Is(err, errNoStack) {
		t.Errorf("without a stack: %v", err)
	}
	if _, err := parseTraces(strings.NewReader("-----+-----\nmain.main\n")); err == nil {
		t.Error("a stack without its time was taken")
	}
}

func TestDraw(t *testing.T) {
	stacks, err := parseTraces(strings.NewReader(traces))
	if err != nil {
		t.Fatal(err)
	}
	root := grow(stacks)
	if root.ms != 511.5 || root.depth() != 4 || root.below["main.main"].ms != 11.5 {
		t.Errorf("%v ms, %d rows, %v ms in main", root.ms, root.depth(), root.below["main.main"])
	}
	svg := string(draw(`<home> & "cabin"`, root))
	names := 0
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, svg)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "title" {
			names++
		}
	}
	if want := 6; names != want { // all, main, f, Send, memmove, mcall
		t.Errorf("%d functions drawn, want %d:\n%s", names, want, svg)
	}
	for _, want := range []string{"main.f[go.shape.struct { a/b }]: 10 ms, 2.0 %", "&lt;home&gt; &amp;", colour("runtime.mcall"), colour("github.com/l2bridge/x")} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in\n%s", want, svg)
		}
	}
}

func TestShort(t *testing.T) {
	for name, want := range map[string]string{
		"github.com/quic-go/quic-go.(*Conn).run":           "quic-go.(*Conn).run",
		"main.f[go.shape.struct { a/b }]":                  "main.f[go.shape.struct..",
		"crypto/internal/fips140/aes/gcm.gcmAesEncAndMore": "gcm.gcmAesEncAndMore",
	} {
		if got := short(name, 24); got != want {
			t.Errorf("short(%q) = %q, want %q", name, got, want)
		}
	}
}
