// SPDX-License-Identifier: Apache-2.0

package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// pmpTries are how long answers are waited for, one after the other. A router
// answers in milliseconds; the library cannot be told to stop, so none is longer
// than a stop of ours may take.
var pmpTries = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond}

// pmp asks a router by NAT-PMP. The library sends from a connected socket and reads
// 16 bytes at most, so that only the router's own port is heard.
type pmp struct {
	way  Way
	port uint16

	epoch  uint32    // the router's seconds, at its last answer
	at     time.Time // of ours
	forgot bool      // it has been restarted since it was asked to forward
}

func openPMP(_ context.Context, way Way, port uint16) (client, error) {
	return &pmp{way: way, port: port}, nil
}

func (c *pmp) look(ctx context.Context, _ uint16) (addr netip.Addr, forgot bool, err error) {
	err = c.call(ctx, func(router *natpmp.Client) (uint32, error) {
		r, err := router.GetExternalAddress()
		if err != nil {
			return 0, err
		}
		addr = netip.AddrFrom4(r.ExternalIPAddress)
		return r.SecondsSinceStartOfEpoc, nil
	})
	if err == nil && addr.IsUnspecified() {
		err = errors.New("the router has no address")
	}
	return addr, c.forgot, err
}

func (c *pmp) add(ctx context.Context, port uint16) (given uint16, life time.Duration, err error) {
	err = c.call(ctx, func(router *natpmp.Client) (uint32, error) {
		r, err := router.AddPortMapping("udp", int(c.port), int(port), int(lifetime/time.Second))
		if err != nil {
			return 0, err
		}
		given, life = r.MappedExternalPort, min(lifetime, time.Duration(r.PortMappingLifetimeInSeconds)*time.Second)
		if r.InternalPort != c.port || given == 0 || life == 0 {
			return 0, errors.New("an answer to something else")
		}
		return r.SecondsSinceStartOfEpoc, nil
	})
	if err == nil {
		c.forgot = false
	}
	return given, life, err
}

func (c *pmp) remove(ctx context.Context, _ uint16) error {
	return c.call(ctx, func(router *natpmp.Client) (uint32, error) {
		r, err := router.AddPortMapping("udp", int(c.port), 0, 0)
		if err != nil {
			return 0, err
		}
		return r.SecondsSinceStartOfEpoc, nil
	})
}

// call asks until there is an answer, and looks at the router's clock.
func (c *pmp) call(ctx context.Context, ask func(*natpmp.Client) (epoch uint32, err error)) (err error) {
	for _, patience := range pmpTries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if end, ok := ctx.Deadline(); ok {
			patience = max(time.Millisecond, min(patience, time.Until(end)))
		}
		router := natpmp.NewClientWithLocalAndTimeout(net.IP(c.way.Router.AsSlice()), net.IP(c.way.Local.AsSlice()), patience)
		var epoch uint32
		epoch, err = ask(router)
		switch {
		case err == nil:
			c.note(epoch, time.Now())
			return nil
		case errors.Is(err, syscall.ECONNREFUSED):
			return err // it does not speak NAT-PMP
		}
		// The library has no other way to say it.
		var code int
		if n, _ := fmt.Sscanf(err.Error(), "Non-zero result code %d", &code); n == 1 {
			return pmpRefusal(code)
		}
	}
	return err
}

// note compares the router's clock with ours (RFC 6886, section 3.6): one that has
// gone back, by more than clocks differ, was started anew.
func (c *pmp) note(epoch uint32, now time.Time) {
	if !c.at.IsZero() {
		expected := uint64(c.epoch) + uint64(now.Sub(c.at)/time.Second)*7/8
		if uint64(epoch)+2 < expected {
			c.forgot = true
		}
	}
	c.epoch, c.at = epoch, now
}

// pmpRefusal makes an error of a result code (RFC 6886, section 3.5).
func pmpRefusal(code int) error {
	switch code {
	case 1, 5:
		return fmt.Errorf("NAT-PMP result %d: not understood", code)
	case 2:
		return &refusal{"NAT-PMP: not authorized, or turned off"}
	case 3:
		return &refusal{"NAT-PMP: the router has no address itself"}
	case 4:
		return &refusal{"NAT-PMP: the router has no room for more"}
	}
	return &refusal{fmt.Sprintf("NAT-PMP: result %d", code)}
}
