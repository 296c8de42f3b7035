// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
)

// Pending is a request to join that waits for a person.
type Pending struct {
	Site     string `json:"site"` // the name that it would have
	ID       string `json:"id"`   // 64 hex digits: SHA-256 of its public key
	Addr     string `json:"addr"`
	AgeMS    int64  `json:"age_ms"`
	LeftMS   int64  `json:"left_ms"`   // until it is over
	Phrase   string `json:"phrase"`    // six words: the asker's key
	CAPhrase string `json:"ca_phrase"` // six words: the network's CA's key
}

// Admitter is the part of a Backend that lets sites in which have no token. Where
// the CA key is not, its errors are ErrNotAuthorised, with the site that has it.
type Admitter interface {
	// Pending returns the requests that wait, the oldest first.
	Pending() ([]Pending, error)
	// Approve lets the asker of a request in, and Deny does not. ref is its site,
	// or the first digits of its id. ErrNotFound when that is no request, or more
	// than one.
	Approve(ref string) (Pending, error)
	Deny(ref string) (Pending, error)
}

// askerName is what can name a request: a site, or an id.
var askerName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// CheckAsker refuses what names no request. The error says the rule.
func CheckAsker(ref string) error {
	if !askerName.MatchString(ref) {
		return fmt.Errorf("%w: asker %.70q: want a site's name, or 8 to 64 digits of an id", ErrInvalid, ref)
	}
	return nil
}

// admitRoutes adds the routes of an Admitter.
func admitRoutes(mux *http.ServeMux, b Admitter, post func(path string, answer func(ctx context.Context, q request) (any, error))) {
	mux.HandleFunc("GET /v1/pending", func(w http.ResponseWriter, _ *http.Request) {
		all, err := b.Pending()
		reply(w, list(all), err)
	})
	for path, decide := range map[string]func(string) (Pending, error){"/v1/approve": b.Approve, "/v1/deny": b.Deny} {
		post(path, func(_ context.Context, q request) (any, error) {
			if err := CheckAsker(q.Site); err != nil {
				return nil, err
			}
			return decide(q.Site)
		})
	}
}

// Pending returns the requests to join that wait for a person. The error is
// ErrNotAuthorised where the CA key is not.
func (c *Client) Pending(ctx context.Context) ([]Pending, error) {
	return ask[[]Pending](ctx, c, "/v1/pending", nil)
}

// Approve lets the asker of a request in, by its site or the first digits of its
// id, and returns the request. Errors are ErrNotFound and ErrNotAuthorised.
func (c *Client) Approve(ctx context.Context, ref string) (Pending, error) {
	return ask[Pending](ctx, c, "/v1/approve", &request{Site: ref})
}

// Deny refuses the asker of a request. See Approve.
func (c *Client) Deny(ctx context.Context, ref string) (Pending, error) {
	return ask[Pending](ctx, c, "/v1/deny", &request{Site: ref})
}
