// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

// maxReplyBytes is more than the greatest MAC table needs.
const maxReplyBytes = 1 << 30

// patience is how long a Client waits for an answer.
const patience = 15 * time.Second

// Client asks the daemon at one socket. It holds no connection between calls
// and may be used from many goroutines. Each method blocks until the daemon
// answers, ctx ends, or, but for Test and Monitor, 15 s have gone; errors are
// ErrNotRunning when there is no daemon, and otherwise of the kinds that Backend
// names.
type Client struct {
	path string
	http http.Client
}

// Dial returns a Client of the socket at path. It does not connect yet.
func Dial(path string) *Client {
	return &Client{path: path, http: http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Status returns how the site is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "/v1/status", nil)
}

// Peers returns the peers, by site.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return ask[[]Peer](ctx, c, "/v1/peers", nil)
}

// Stations returns the MAC table.
func (c *Client) Stations(ctx context.Context) ([]Station, error) {
	return ask[[]Station](ctx, c, "/v1/fdb", nil)
}

// AddStation makes a static entry that survives restarts. port is LocalPort
// or a site.
func (c *Client) AddStation(ctx context.Context, mac net.HardwareAddr, vlan uint16, port string) error {
	_, err := ask[struct{}](ctx, c, "/v1/fdb/add", &request{MAC: mac.String(), VLAN: vlan, Port: port})
	return err
}

// DelStation forgets an entry. The error is ErrNotFound when there is none.
func (c *Client) DelStation(ctx context.Context, mac net.HardwareAddr, vlan uint16) error {
	_, err := ask[struct{}](ctx, c, "/v1/fdb/del", &request{MAC: mac.String(), VLAN: vlan})
	return err
}

// FlushStations forgets the learned entries of a port, or with "" of all, and
// returns how many they were.
func (c *Client) FlushStations(ctx context.Context, port string) (int, error) {
	r, err := ask[flushReply](ctx, c, "/v1/fdb/flush", &request{Port: port})
	return r.Flushed, err
}

// Drops returns every drop reason with its count.
func (c *Client) Drops(ctx context.Context) ([]Drop, error) {
	return ask[[]Drop](ctx, c, "/v1/drops", nil)
}

// Invite returns a token with which one site can join once, within ttl. site
// may be "". The error is ErrNotAuthorised away from the founder's site.
func (c *Client) Invite(ctx context.Context, site string, ttl time.Duration) (string, error) {
	r, err := ask[tokenReply](ctx, c, "/v1/invite", &request{Site: site, TTLMS: ttl.Milliseconds()})
	return r.Token, err
}

// Revoke puts a site out of the network. Errors are those of Backend.
func (c *Client) Revoke(ctx context.Context, site string) (Revoked, error) {
	return ask[Revoked](ctx, c, "/v1/revoke", &request{Site: site})
}

// Leave takes the daemon's site out of the network; the daemon ends. Errors are
// those of Backend.
func (c *Client) Leave(ctx context.Context) (Left, error) {
	return ask[Left](ctx, c, "/v1/leave", &request{})
}

// Rekey gives the daemon's site another key and, unless that is "", the name site.
func (c *Client) Rekey(ctx context.Context, site string) (Rekeyed, error) {
	return ask[Rekeyed](ctx, c, "/v1/rekey", &request{Site: site})
}

// DropCA takes the CA key away from the daemon's site. sum is that of what was
// read of it.
func (c *Client) DropCA(ctx context.Context, sum [sha256.Size]byte) error {
	_, err := ask[struct{}](ctx, c, "/v1/ca/drop", &request{Sum: sum[:]})
	return err
}

// ImportCA makes the daemon's site the holder of the CA key in data, and returns
// the site's name.
func (c *Client) ImportCA(ctx context.Context, data []byte) (string, error) {
	r, err := ask[siteReply](ctx, c, "/v1/ca/import", &request{CA: data})
	return r.Site, err
}

// remoteError is an error of the daemon's: its text, and its kind.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// ask posts q, or gets when there is none, and reads an answer of type T.
func ask[T any](ctx context.Context, c *Client, path string, q *request) (T, error) {
	var answer T
	response, err := c.send(ctx, path, q)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxReplyBytes)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("control socket %s: answer: %w", c.path, err)
	}
	return answer, nil
}

// send posts q, or gets when there is none, and returns the answer to be read and
// closed. A refusal is an error.
func (c *Client) send(ctx context.Context, path string, q *request) (*http.Response, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if q != nil {
		text, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		method, body = http.MethodPost, bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://l2bridge"+path, body)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var refusal errorReply
	if err := json.NewDecoder(io.LimitReader(response.Body, maxReplyBytes)).Decode(&refusal); err != nil || refusal.Error == "" {
		return nil, fmt.Errorf("control socket %s: %s %s: %s (are command and daemon of the same version?)",
			c.path, method, path, response.Status)
	}
	return nil, &remoteError{refusal.Error, statuses[response.StatusCode]}
}

// explain turns an error of the connection into one of ours.
func (c *Client) explain(err error) error {
	if request := (*url.Error)(nil); errors.As(err, &request) {
		err = request.Err // without the URL, which is nobody's
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: nobody answers at %s (start it with \"l2bridge up\")", ErrNotRunning, c.path)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: control socket %s: permission denied (run as root)", ErrNotAuthorised, c.path)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("control socket %s: the daemon takes connections and does not answer (it, or this machine, stands still: see its log, or restart it)", c.path)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("control socket %s: the daemon has ended without an answer (see its log, and try again)", c.path)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}
