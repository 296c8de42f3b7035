// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The bounds of the time that a test may load each direction.
const (
	LeastTest = time.Second
	MostTest  = 30 * time.Second
)

// TestReport is what a test of the way to a site found.
type TestReport struct {
	Site        string        `json:"site"`
	Addr        string        `json:"addr"`
	PathMTU     int           `json:"path_mtu"` // UDP payload in bytes
	Lanes       int           `json:"lanes"`    // that carried frames in the end
	Superframes bool          `json:"superframes"`
	Idle        TestRTT       `json:"idle"`
	Up          TestDirection `json:"up"`   // to the site
	Down        TestDirection `json:"down"` // from it
	Sizes       TestSizes     `json:"sizes"`
}

// TestRTT is round trips of small frames, one every 20 ms. The times are of those
// that came back, in microseconds.
type TestRTT struct {
	MinUS   int64 `json:"min_us"`
	AvgUS   int64 `json:"avg_us"`
	P99US   int64 `json:"p99_us"`
	MaxUS   int64 `json:"max_us"`
	Sent    int   `json:"sent"`
	Lost    int   `json:"lost"`
	LossPPM int64 `json:"loss_ppm"` // of a million, both ways together
}

// TestDirection is what one direction carried under load.
type TestDirection struct {
	BitsPS  uint64  `json:"bits_per_s"` // of frames, each FrameBytes long
	Mbits   uint64  `json:"mbits"`      // the same, rounded
	Frame   int     `json:"frame_bytes"`
	Sent    uint64  `json:"sent"` // frames
	Recv    uint64  `json:"received"`
	Dropped uint64  `json:"dropped"` // by the sender's queue: how its flows find their speed
	Lost    uint64  `json:"lost"`    // on the way
	LossPPM int64   `json:"loss_ppm"`
	RTT     TestRTT `json:"rtt"` // meanwhile
}

// TestSizes is which sizes of frames, in bytes, come back whole.
type TestSizes struct {
	Least    int         `json:"least"`
	Most     int         `json:"most"`
	Sent     int         `json:"sent"` // how many sizes were tried
	Received int         `json:"received"`
	Failed   []TestRange `json:"failed"`
}

// TestRange is sizes in a row of those that were tried.
type TestRange struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// TestProgress says how far a test is.
type TestProgress struct {
	Phase  string `json:"phase"` // idle, up, down or sizes
	BitsPS uint64 `json:"bits_per_s"`
}

// testLine is a line of the answer: news until the last one, which is a report or
// an error.
type testLine struct {
	Progress *TestProgress `json:"progress,omitempty"`
	Report   *TestReport   `json:"report,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// testLineTime bounds the writing of a line: a client that reads nothing ends the
// test.
const testLineTime = 5 * time.Second

// testRoute answers a test line by line while it runs. It ends when the client
// goes.
func testRoute(b Backend) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := readRequest(w, r, maxRequestBytes)
		each := time.Duration(q.TimeMS) * time.Millisecond
		if err == nil && (q.TimeMS < LeastTest.Milliseconds() || q.TimeMS > MostTest.Milliseconds()) {
			err = fmt.Errorf("%w: time %d ms: want %d to %d", ErrInvalid, q.TimeMS, LeastTest.Milliseconds(), MostTest.Milliseconds())
		}
		if err != nil {
			reply(w, nil, err)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		flow := http.NewResponseController(w)
		// The server's own deadlines are for answers that take no time. One that
		// cannot be set, as in a test without a connection, need not be.
		_ = flow.SetReadDeadline(time.Time{})
		said := false
		say := func(line testLine) {
			if !said {
				w.Header().Set("Content-Type", "application/x-ndjson")
			}
			said = true
			_ = flow.SetWriteDeadline(time.Now().Add(testLineTime))
			if err := errors.Join(json.NewEncoder(w).Encode(line), ignoreUnsupported(flow.Flush())); err != nil {
				cancel()
			}
		}
		report, err := b.Test(ctx, q.Site, each, func(p TestProgress) { say(testLine{Progress: &p}) })
		switch {
		case err != nil && !said:
			_ = flow.SetWriteDeadline(time.Now().Add(testLineTime))
			reply(w, nil, err)
		case err != nil:
			say(testLine{Error: err.Error()})
		default:
			report.Sizes.Failed = list(report.Sizes.Failed)
			say(testLine{Report: &report})
		}
	}
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// Test measures the way to a site, with a load of so long each way. progress is
// called as it goes on. The error is ErrNotFound when there is no such site.
func (c *Client) Test(ctx context.Context, site string, each time.Duration, progress func(TestProgress)) (TestReport, error) {
	patient := *c
	patient.http.Timeout = 0 // ctx and the daemon end it
	response, err := patient.send(ctx, "/v1/test", &request{Site: site, TimeMS: each.Milliseconds()})
	if err != nil {
		return TestReport{}, err
	}
	defer response.Body.Close()
	lines := json.NewDecoder(io.LimitReader(response.Body, maxReplyBytes))
	for {
		var line testLine
		switch err := lines.Decode(&line); {
		case ctx.Err() != nil:
			return TestReport{}, ctx.Err()
		case err == io.EOF:
			return TestReport{}, fmt.Errorf("control socket %s: the daemon has ended", c.path)
		case err != nil:
			return TestReport{}, fmt.Errorf("control socket %s: answer: %w", c.path, err)
		case line.Error != "":
			return TestReport{}, &remoteError{text: line.Error}
		case line.Report != nil:
			return *line.Report, nil
		case line.Progress != nil:
			progress(*line.Progress)
		}
	}
}
