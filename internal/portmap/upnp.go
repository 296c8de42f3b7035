// SPDX-License-Identifier: Apache-2.0

package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

const (
	// maxServices bounds the services of a router that are tried.
	maxServices = 8
	// portTries bounds how often one router is asked with something changed.
	portTries = 5
)

// What a router may say (UPnP WANIPConnection:2, table 2-18 and elsewhere).
const (
	faultInvalidAction  = 401
	faultInvalidArgs    = 402
	faultActionFailed   = 501
	faultOutOfMemory    = 603
	faultNotImplemented = 602
	faultNotAuthorized  = 606
	faultNoSuchEntry    = 714
	faultConflict       = 718
	faultPermanentOnly  = 725
	faultNoPorts        = 728
)

// connection is what WANIPConnection and WANPPPConnection have in common, in all
// their versions.
type connection interface {
	GetExternalIPAddressCtx(ctx context.Context) (addr string, err error)
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16,
		client string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, protocol string) (internal uint16,
		client string, enabled bool, description string, lease uint32, err error)
}

// igd asks a router by UPnP.
type igd struct {
	connection
	any     *internetgateway2.WANIPConnection2 // the same, if it is of IGD 2
	way     Way
	port    uint16
	forever bool // it grants no leases that end
}

// openUPnP finds the router's service that has an address.
func openUPnP(ctx context.Context, way Way, port uint16) (client, error) {
	why := errSilent
	tried := 0
	web := newWeb(way)
	for _, location := range search(ctx, way) {
		root, err := describe(ctx, web, location)
		if err != nil {
			continue
		}
		for _, c := range connections(root, way, port) {
			if tried++; tried > maxServices || ctx.Err() != nil {
				return nil, why
			}
			_, _, err := c.look(ctx, 0)
			var no *refusal
			switch {
			case err == nil:
				return c, nil
			case why == errSilent && errors.As(err, &no):
				why = err
			}
		}
	}
	return nil, why
}

// connections returns what of a router may have an address outside, the newest
// kind first.
func connections(root *goupnp.RootDevice, way Way, port uint16) (all []*igd) {
	add := func(sc *goupnp.ServiceClient, c connection, any *internetgateway2.WANIPConnection2) {
		sc.SOAPClient.HTTPClient = *newWeb(way)
		all = append(all, &igd{connection: c, any: any, way: way, port: port})
	}
	// An error is that there is none.
	if ip2, err := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, nil); err == nil {
		for _, c := range ip2 {
			add(&c.ServiceClient, c, c)
		}
	}
	if ip1, err := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, nil); err == nil {
		for _, c := range ip1 {
			add(&c.ServiceClient, c, nil)
		}
	}
	if ppp, err := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, nil); err == nil {
		for _, c := range ppp {
			add(&c.ServiceClient, c, nil)
		}
	}
	return all
}

func (c *igd) look(ctx context.Context, port uint16) (addr netip.Addr, forgot bool, err error) {
	text, err := c.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return addr, false, upnpError(err)
	}
	if addr, err = netip.ParseAddr(text); err != nil || addr.IsUnspecified() {
		return addr, false, errors.New("the router has no address")
	}
	if port == 0 {
		return addr, false, nil
	}
	internal, client, enabled, _, _, err := c.GetSpecificPortMappingEntryCtx(ctx, "", port, "UDP")
	if err != nil {
		// Whatever else it says: not all answer to that.
		return addr, fault(err) == faultNoSuchEntry, nil
	}
	return addr, internal != c.port || client != c.way.Local.String() || !enabled, nil
}

func (c *igd) add(ctx context.Context, port uint16) (given uint16, life time.Duration, err error) {
	for range portTries {
		given, life, err = c.addOnce(ctx, port)
		switch code := fault(err); {
		case err == nil && given == 0:
			return 0, 0, errors.New("the router gives port 0")
		case err == nil:
			return given, life, nil
		case c.any != nil && (code == faultInvalidAction || code == faultNotImplemented):
			c.any = nil
		case !c.forever && (code == faultPermanentOnly || code == faultInvalidArgs):
			c.forever, c.any = true, nil // some say "invalid" instead
		case code == faultConflict:
			port = uint16(20000 + rand.IntN(40000)) // another machine's; a free one is likely there
		default:
			return 0, 0, upnpError(err)
		}
	}
	return 0, 0, upnpError(err)
}

func (c *igd) addOnce(ctx context.Context, port uint16) (given uint16, life time.Duration, err error) {
	const description = "l2bridge"
	if !c.forever {
		life = lifetime
	}
	lease, local := uint32(life/time.Second), c.way.Local.String()
	if c.any != nil {
		given, err = c.any.AddAnyPortMappingCtx(ctx, "", port, "UDP", c.port, local, true, description, lease)
		return given, life, err
	}
	return port, life, c.AddPortMappingCtx(ctx, "", port, "UDP", c.port, local, true, description, lease)
}

func (c *igd) remove(ctx context.Context, port uint16) error {
	return c.DeletePortMappingCtx(ctx, "", port, "UDP")
}

// fault returns the code of a router's no, or 0.
func fault(err error) int {
	var f *soap.SOAPFaultError
	if !errors.As(err, &f) {
		return 0
	}
	return f.Detail.UPnPError.Errorcode
}

// upnpError makes a refusal of a router's no.
func upnpError(err error) error {
	var f *soap.SOAPFaultError
	if !errors.As(err, &f) {
		return err
	}
	switch code := fault(err); code {
	case faultNotAuthorized:
		return &refusal{"UPnP: not authorized"}
	case faultConflict:
		return &refusal{"UPnP: all ports that were tried are taken"}
	case faultNoPorts, faultOutOfMemory:
		return &refusal{"UPnP: the router has no room for more"}
	case faultActionFailed:
		return &refusal{"UPnP: the router says that it failed"}
	default:
		return &refusal{fmt.Sprintf("UPnP: error %d", code)}
	}
}
