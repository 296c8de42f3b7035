// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/transport"
	"github.com/l2bridge/l2bridge/transport/probe"
)

// Test implements control.Backend.
func (b backend) Test(ctx context.Context, site string, each time.Duration, progress func(control.TestProgress)) (control.TestReport, error) {
	r, err := b.s.mesh.Test(ctx, site, each, func(p probe.Progress) {
		progress(control.TestProgress{Phase: string(p.Phase), BitsPS: p.BitsPS})
	})
	switch {
	case errors.Is(err, transport.ErrNoPeer):
		return control.TestReport{}, fmt.Errorf("%w: %w", control.ErrNotFound, err)
	case err != nil:
		return control.TestReport{}, err
	}
	report := control.TestReport{
		Site: site, Addr: r.Addr, PathMTU: r.PathMTU, Lanes: r.Lanes, Superframes: r.Superframes,
		Idle: testRTT(r.Idle), Up: testDirection(r.Up), Down: testDirection(r.Down),
		Sizes: control.TestSizes{
			Least: r.Sizes.Least, Most: r.Sizes.Most, Sent: r.Sizes.Sent, Received: r.Sizes.Received, Failed: []control.TestRange{},
		},
	}
	for _, f := range r.Sizes.Failed {
		report.Sizes.Failed = append(report.Sizes.Failed, control.TestRange(f))
	}
	return report, nil
}

func testRTT(r probe.RTT) control.TestRTT {
	return control.TestRTT{
		MinUS: r.Min.Microseconds(), AvgUS: r.Avg.Microseconds(), P99US: r.P99.Microseconds(), MaxUS: r.Max.Microseconds(),
		Sent: r.Sent, Lost: r.Lost, LossPPM: perMillion(uint64(r.Lost), uint64(r.Sent)),
	}
}

func testDirection(d probe.Direction) control.TestDirection {
	return control.TestDirection{
		BitsPS: d.BitsPS, Mbits: (d.BitsPS + 500_000) / 1_000_000, Frame: d.Length,
		Sent: d.Sent, Recv: d.Received, Dropped: d.Dropped, Lost: d.Lost,
		LossPPM: perMillion(d.Lost, d.Sent-d.Dropped), RTT: testRTT(d.RTT),
	}
}

// perMillion returns how many of a million that is; 0 of nothing.
func perMillion(part, whole uint64) int64 {
	if whole == 0 {
		return 0
	}
	return int64(part * 1_000_000 / whole)
}
