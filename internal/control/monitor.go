// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/l2bridge/l2bridge/internal/event"
)

// maxEventBytes is longer than any event.
const maxEventBytes = 64 << 10

// monitorRoute answers with events, a line each, until the client or the daemon
// goes. The headers come at once: from then on nothing is missed. A client that
// reads slowly, or not at all, holds up its own answer alone; what it is too
// slow for is lost and counted by the subscription.
func monitorRoute(b Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := readRequest(w, r, maxRequestBytes)
		var events *event.Subscription
		if err == nil {
			events, err = b.Events(q.Kinds...)
		}
		if err != nil {
			reply(w, nil, err)
			return
		}
		defer events.Close()
		ctx := r.Context()
		flow := http.NewResponseController(w)
		// The server's own deadlines are for answers that take no time. One that
		// cannot be set, as in a test without a connection, need not be.
		_ = errors.Join(flow.SetReadDeadline(time.Time{}), flow.SetWriteDeadline(time.Time{}))
		// A write to a client that does not read must not outlive the daemon.
		stop := context.AfterFunc(ctx, func() { _ = flow.SetWriteDeadline(time.Now()) })
		defer stop()

		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		lines := json.NewEncoder(w)
		for ignoreUnsupported(flow.Flush()) == nil {
			e, err := events.Next(ctx)
			if err != nil {
				return
			}
			if err := lines.Encode(e); err != nil {
				return
			}
		}
	}
}

// Monitor calls told with each event of these kinds, or with none of all, from
// now on, until ctx ends or told fails, and returns that error. When the daemon
// goes the error is ErrNotRunning.
func (c *Client) Monitor(ctx context.Context, told func(event.Event) error, kinds ...event.Kind) error {
	patient := *c
	patient.http.Timeout = 0 // ctx and the daemon end it
	response, err := patient.send(ctx, "/v1/monitor", &request{Kinds: kinds})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		var e event.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("control socket %s: answer: %w (are command and daemon of the same version?)", c.path, err)
		}
		if err := told(e); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("control socket %s: answer: %w", c.path, err)
	}
	return fmt.Errorf("%w: the daemon at %s has ended", ErrNotRunning, c.path)
}
