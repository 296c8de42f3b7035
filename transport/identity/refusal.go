// SPDX-License-Identifier: Apache-2.0

package identity

import "fmt"

// Refusal is why a founder does not let a joiner in. It is the error at the
// founder and, carried over in the reply, at the joiner; use errors.As to know
// one, errors.Is with the variables below to tell which.
type Refusal struct {
	Code byte   // never 0; one that is not known here is a refusal too
	Text string // what is wrong and what to do, for the joiner to read
}

// Error returns the text, with the code when there is none.
func (r *Refusal) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("refused by the founder, code %d", r.Code)
	}
	return r.Text
}

// Is reports whether target is a refusal for the same reason, whatever the
// text.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

// because returns the refusal r with a text that names the case.
func (r *Refusal) because(format string, args ...any) *Refusal {
	return &Refusal{Code: r.Code, Text: fmt.Sprintf(format, args...)}
}

// The reasons for a refusal. The codes are part of the protocol.
var (
	// ErrMalformed says that the request could not be read.
	ErrMalformed = &Refusal{1, "the founder cannot read the request (is one of the two l2bridge versions too old?)"}
	// ErrTokenUnknown says that the founder has no such token, or that the
	// joiner has not proven to hold it: who only guesses learns no more.
	ErrTokenUnknown = &Refusal{2, "the founder does not know this token (ask for a new one: l2bridge invite)"}
	// ErrTokenEnded says that the token's time is over.
	ErrTokenEnded = &Refusal{3, "token has ended (ask for a new one: l2bridge invite)"}
	// ErrTokenUsed says that another key has joined with the token.
	ErrTokenUsed = &Refusal{4, "token has been used by another machine (ask for a new one: l2bridge invite)"}
	// ErrSiteTaken says that another key has the site name.
	ErrSiteTaken = &Refusal{5, "site name is taken (pick another with --site)"}
	// ErrSiteRefused says that the site name is not a valid one, or not the
	// one that the token is for.
	ErrSiteRefused = &Refusal{6, "site name is not allowed (pick another with --site)"}
	// ErrKeyTaken says that the joiner's key, or its short name in relayed
	// records, is in the network already under another site name.
	ErrKeyTaken = &Refusal{7, "key is in use under another name"}
	// ErrKeyRevoked says that the joiner's key has been put out.
	ErrKeyRevoked = &Refusal{8, "key has been put out of the network (join with a new state directory)"}
	// ErrUnavailable says that the founder could not judge or store the
	// request. The token is as good as before: trying again later may help.
	ErrUnavailable = &Refusal{9, "the founder cannot enrol anybody right now (look at its log, then try again)"}
	// ErrAskDenied says that a person does not let the asker in.
	ErrAskDenied = &Refusal{16, "a person at the founder's site has denied this request (ask again in ten minutes, or with a token: l2bridge invite)"}
	// ErrAskBusy says that the request cannot wait for a person: there are
	// too many, or there is one from the same address.
	ErrAskBusy = &Refusal{17, "too many requests wait at the founder's site (try again later, or join with a token: l2bridge invite)"}
	// ErrAskEnded says that no person has decided in time.
	ErrAskEnded = &Refusal{18, "nobody at the founder's site has approved this request in time (run the same command again)"}
)
