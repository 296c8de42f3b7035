// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// call is a function where it was called from, and all that it called.
type call struct {
	name  string
	ms    float64 // in it and in what it called
	below map[string]*call
}

// grow puts stacks together to a tree.
func grow(stacks []stack) *call {
	root := &call{name: "all"}
	for _, s := range stacks {
		c := root
		c.ms += s.ms
		for _, name := range s.calls {
			next := c.below[name]
			if next == nil {
				if c.below == nil {
					c.below = make(map[string]*call)
				}
				next = &call{name: name}
				c.below[name] = next
			}
			next.ms += s.ms
			c = next
		}
	}
	return root
}

// depth returns how many rows a tree has.
func (c *call) depth() int {
	deepest := 0
	for _, next := range c.below {
		deepest = max(deepest, next.depth())
	}
	return 1 + deepest
}

// What a function belongs to, by the beginning of its name, and its colour. The
// first that fits counts.
var parts = []struct {
	name, colour string
	prefixes     []string
}{
	{"l2bridge", "#f4a261", []string{"github.com/l2bridge/"}},
	{"quic-go", "#8ecae6", []string{"github.com/quic-go/"}},
	{"crypto", "#c8b6ff", []string{"crypto/"}},
	{"system calls", "#e76f51", []string{"syscall.", "internal/runtime/syscall"}},
	{"runtime", "#d3d3d3", []string{"runtime.", "internal/runtime/"}},
	{"other", "#f1e3a0", []string{""}},
}

// Sizes of the picture in pixels.
const (
	width     = 1600
	rowHeight = 17
	top       = 56 // for title and legend
	margin    = 10
	letter    = 6.7 // width of one, at fontSize, monospace
	fontSize  = 11
	thinnest  = 0.3 // what is not drawn any more
)

// draw makes the picture: the outermost calls at the bottom, as wide as the
// time in them; of what is too narrow for its name the pointer tells.
func draw(title string, root *call) []byte {
	rows := root.depth()
	height := top + rows*rowHeight + margin
	p := picture{total: root.ms, bottom: height - margin}
	fmt.Fprintf(&p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="monospace" font-size="%d">`+"\n",
		width, height, width, height, fontSize)
	fmt.Fprintf(&p, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	fmt.Fprintf(&p, `<text x="%d" y="20" font-size="15">%s, %.1f s of processor time</text>`+"\n", margin, escape(title), root.ms/1000)
	x := margin
	for _, part := range parts {
		fmt.Fprintf(&p, `<rect x="%d" y="30" width="12" height="12" fill="%s"/><text x="%d" y="40">%s</text>`+"\n",
			x, part.colour, x+16, escape(part.name))
		x += 16 + int(letter*float64(len(part.name))) + 20
	}
	p.call(root, margin, 0)
	fmt.Fprintln(&p, `</svg>`)
	return p.Bytes()
}

type picture struct {
	bytes.Buffer
	total  float64
	bottom int
}

// call draws a function and all above it.
func (p *picture) call(c *call, x float64, row int) {
	w := c.ms / p.total * (width - 2*margin)
	if w < thinnest {
		return
	}
	y := p.bottom - (row+1)*rowHeight
	fmt.Fprintf(p, `<g><title>%s: %.0f ms, %.1f %%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#ffffff" stroke-width="0.5"/>`,
		escape(c.name), c.ms, 100*c.ms/p.total, x, y, w, rowHeight-1, colour(c.name))
	if room := int((w - 4) / letter); room >= 3 {
		fmt.Fprintf(p, `<text x="%.1f" y="%d">%s</text>`, x+2, y+12, escape(short(c.name, room)))
	}
	fmt.Fprintln(p, `</g>`)
	// By name, so that two pictures can be laid side by side.
	for _, next := range slices.SortedFunc(maps.Values(c.below), func(a, b *call) int { return cmp.Compare(a.name, b.name) }) {
		p.call(next, x, row+1)
		x += next.ms / p.total * (width - 2*margin)
	}
}

func colour(name string) string {
	for _, part := range parts {
		if slices.ContainsFunc(part.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			return part.colour
		}
	}
	return ""
}

// short is a function's name without the way to its package, in so many
// letters.
func short(name string, room int) string {
	// What stands in brackets may have a way of its own.
	head, rest := name, ""
	if i := strings.IndexAny(name, "(["); i >= 0 {
		head, rest = name[:i], name[i:]
	}
	name = head[strings.LastIndexByte(head, '/')+1:] + rest
	if len(name) > room {
		name = name[:room-2] + ".."
	}
	return name
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a Buffer takes all
	return b.String()
}
