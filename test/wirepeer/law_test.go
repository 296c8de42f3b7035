// SPDX-License-Identifier: Apache-2.0

package wirepeer_test

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/l2bridge/l2bridge/test/wirepeer"
)

type (
	events = []wirepeer.Event
	drops  = map[string]uint64
)

// rule is a case and the words of the law that decide it. Where the law no
// longer has these words its case must be read again.
type rule struct {
	name  string
	law   string
	mtu   int                      // 0 means 1500
	side  func(*wirepeer.Receiver) // changes who the receiver is and what it takes
	in    [][]byte                 // datagrams, sequence included
	want  events
	drops drops
}

func testRules(t *testing.T, rules []rule) {
	law := lawText(t)
	for _, c := range rules {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(law, c.law) {
				t.Errorf("docs/wire.md no longer says %q", c.law)
			}
			if c.mtu == 0 {
				c.mtu = 1500
			}
			r := wirepeer.New(c.mtu)
			if c.side != nil {
				c.side(r)
			}
			var got events
			for _, b := range c.in {
				got = append(got, r.Datagram(b)...)
			}
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.drops, r.Drops(), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("drops (-want +got):\n%s", d)
			}
		})
	}
}

// lawText is docs/wire.md with each run of white space as one space.
func lawText(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// datagram is records behind sequence 0.
func datagram(records ...[]byte) []byte {
	b := []byte{0, 0}
	for _, r := range records {
		b = append(b, r...)
	}
	return b
}

func slice(flags wirepeer.Flags, id uint16, offset, total int, b []byte) []byte {
	return wirepeer.AppendSlice(nil, flags, id, offset, total, b)
}

func head(flags wirepeer.Flags, id uint16, total int, b []byte) []byte {
	return wirepeer.AppendHead(nil, flags, id, total, b)
}

// frame is n bytes that differ, with an EtherType that says nothing.
func frame(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	if n >= 14 {
		b[12], b[13] = 0x88, 0xb5
	}
	return b
}

func plain(b []byte) wirepeer.Object { return wirepeer.Object{Frame: b} }

// TestExamples reads section 7: the bytes mean what the text above them says,
// and the builders make the same bytes.
func TestExamples(t *testing.T) {
	examples := lawExamples(t)
	zeros := plain(make([]byte, 14))
	ask := wirepeer.Heartbeat{Mode: wirepeer.Ask, Nonce: 0x0102030405060708}
	sender := func(sequence uint16) *wirepeer.Sender {
		return &wirepeer.Sender{Size: 1200, Sequence: sequence}
	}
	cases := []struct {
		name  string
		built []byte
		want  events
	}{
		{
			"whole",
			sender(5).Datagrams([]wirepeer.Object{zeros})[0],
			events{zeros},
		},
		{
			"slice",
			append(slice(0, 2, 0, 1514, []byte{0xaa, 0xbb, 0xcc, 0xdd}), 0, 0),
			nil,
		},
		{
			"heartbeat",
			sender(7).Heartbeat(ask),
			events{ask},
		},
	}
	cases[1].built = append([]byte{0, 6}, cases[1].built...)
	if len(examples) != len(cases) {
		t.Fatalf("section 7 has %d examples, want %d", len(examples), len(cases))
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.built, examples[i]); d != "" {
				t.Errorf("bytes (-built +text):\n%s", d)
			}
			r := wirepeer.New(1500)
			if d := cmp.Diff(c.want, r.Datagram(examples[i]), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			if d := cmp.Diff(drops{}, r.Drops()); d != "" {
				t.Errorf("drops (-want +got):\n%s", d)
			}
		})
	}

	// The slice of the text is the beginning of an object that can be ended.
	r := wirepeer.New(1500)
	r.Datagram(examples[1])
	rest := frame(1514)[4:]
	want := plain(append([]byte{0xaa, 0xbb, 0xcc, 0xdd}, rest...))
	got := r.Datagram(datagram(slice(0, 2, 4, 1514, rest)))
	if d := cmp.Diff(events{want}, got); d != "" {
		t.Errorf("ended slice (-want +got):\n%s", d)
	}
}

// lawExamples returns the datagrams of section 7. The dots in one stand for
// zeros, up to the 64 bytes of which its text speaks.
func lawExamples(t *testing.T) (examples [][]byte) {
	t.Helper()
	law, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(law), "\n## 7. ")
	text, _, _ = strings.Cut(text, "\n## ")
	for i, block := range strings.Split(text, "```\n") {
		if i%2 == 0 {
			continue
		}
		before, after, dots := strings.Cut(strings.Join(strings.Fields(block), ""), "...")
		b, err := hex.DecodeString(before)
		if err != nil {
			t.Fatalf("example %q: %v", block, err)
		}
		if dots {
			end, err := hex.DecodeString(after)
			if err != nil {
				t.Fatalf("example %q: %v", block, err)
			}
			b = append(wirepeer.Pad(b, 64-len(end)), end...)
		}
		examples = append(examples, b)
	}
	return examples
}

// TestReasons checks that the counters are the code words of the law.
func TestReasons(t *testing.T) {
	law := lawText(t)
	for _, reason := range reasons {
		if !strings.Contains(law, "`"+reason+"`") {
			t.Errorf("docs/wire.md has no `%s`", reason)
		}
	}
}

var reasons = []string{
	wirepeer.Malformed, wirepeer.UnknownRecord, wirepeer.Late, wirepeer.Reassembly,
	wirepeer.Relay, wirepeer.BadOffload, wirepeer.MTUPeer, wirepeer.TestRefused,
}
