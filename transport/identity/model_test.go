// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// book is a founder as one would tell it: who has which name, and which token
// went to whom.
type book struct {
	sites  map[string]int // who has it; -1 the founder
	tokens []bookToken
}

type bookToken struct {
	Token
	usedBy int // -1: nobody
}

// enrol returns what the founder is to say to who, asking with token for site.
func (b *book) enrol(who, token int, site string) error {
	t := &b.tokens[token]
	switch {
	case t.usedBy >= 0 && t.usedBy != who:
		return ErrTokenUsed
	case t.usedBy < 0 && time.Now().After(t.End):
		return ErrTokenEnded
	case t.Site != "" && t.Site != site:
		return ErrSiteRefused
	}
	for had, holder := range b.sites {
		if holder == who && had != site {
			return ErrKeyTaken
		}
	}
	if holder, ok := b.sites[site]; ok && holder != who {
		return ErrSiteTaken
	}
	b.sites[site], t.usedBy = who, who
	return nil
}

// inBubble hides T.Deadline, which may not be called in a bubble, from rapid.
type inBubble struct{ *testing.T }

func TestFounderAgreesWithBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(t *rapid.T) {
			home, err := newMemory().dir().Found("home")
			if err != nil {
				t.Fatal(err)
			}
			joiners := make([]ed25519.PublicKey, 3)
			for i := range joiners {
				if joiners[i], _, err = ed25519.GenerateKey(nil); err != nil {
					t.Fatal(err)
				}
			}
			b := book{sites: map[string]int{"home": -1}}
			names := rapid.SampledFrom([]string{"home", "a", "b", "c"})
			t.Repeat(map[string]func(*rapid.T){
				"invite": func(t *rapid.T) {
					site := rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "site")
					tok, err := home.Invite(site, 10*time.Second, []string{"192.0.2.1:1"})
					if err != nil {
						t.Fatal(err)
					}
					b.tokens = append(b.tokens, bookToken{tok, -1})
				},
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 15).Draw(t, "seconds")) * time.Second)
				},
				"enrol": func(t *rapid.T) {
					if len(b.tokens) == 0 {
						t.Skip("no token yet")
					}
					who := rapid.IntRange(0, len(joiners)-1).Draw(t, "who")
					token := rapid.IntRange(0, len(b.tokens)-1).Draw(t, "token")
					site := names.Draw(t, "site")
					want := b.enrol(who, token, site)
					// What Enrol does once the proof has been found right.
					err := home.dir.update(func(st *state) error {
						_, err := home.judge(st.Ledger, st.Ledger.token(b.tokens[token].id), site, joiners[who])
						return err
					})
					if !errors.Is(err, want) {
						t.Fatalf("judge: %v, want %v", err, want)
					}
				},
				"": func(t *rapid.T) {
					st, err := home.dir.readStateLocked()
					if err != nil {
						t.Fatal(err)
					}
					var names []string
					for _, c := range st.Ledger.Issued {
						names = append(names, c.Site)
					}
					slices.Sort(names)
					if want := slices.Sorted(maps.Keys(b.sites)); !slices.Equal(names, want) {
						t.Fatalf("issued %q, want %q", names, want)
					}
				},
			})
		})
	})
}
