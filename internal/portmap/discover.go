// SPDX-License-Identifier: Apache-2.0

package portmap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/ssdp"
	"golang.org/x/net/ipv4"
)

const (
	// searching is how long answers to a search are waited for, of which the
	// router is told the greater part (MX, in whole seconds).
	searching = 2500 * time.Millisecond
	// afterFirst is how long more are waited for once there is one.
	afterFirst = 200 * time.Millisecond
	// searchAgain is when the search is sent a second time.
	searchAgain = time.Second
	// maxHeard bounds the packets that are read for one search, and maxAnswers
	// what is taken of them.
	maxHeard, maxAnswers = 512, 4
	// maxPacket is the length of the longest answer.
	maxPacket = 2048
	// maxBody bounds what a router may say at once; descriptions take some 5 kB.
	maxBody, maxHead = 128 << 10, 16 << 10
	// webTimeout bounds one request, from dialling to the last byte.
	webTimeout = 4 * time.Second

	ssdpPort = 1900
)

// targets are what is looked for. A router of IGD 2 answers to 1 as well, or
// should.
var targets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
}

// search returns where the router's descriptions are, the first to come first. An
// error is as good as no answer.
func search(ctx context.Context, way Way) (locations []*url.URL) {
	ctx, cancel := context.WithTimeout(ctx, searching)
	defer cancel()
	// Not one target: searcher puts in its own.
	answers, err := ssdp.RawSearch(ctx, searcher{way}, ssdp.SSDPAll, 2)
	if err != nil {
		return nil
	}
	seen := make(map[string]bool)
	for _, a := range answers {
		if u, err := a.Location(); err == nil && !seen[u.String()] {
			seen[u.String()] = true
			locations = append(locations, u)
		}
	}
	return locations
}

// searcher sends searches and takes the answers. goupnp's own asks on all
// interfaces, takes what anybody sends, any amount of it, and logs what it cannot
// read.
type searcher struct{ way Way }

// DoWithContext implements ssdp.HTTPUClientCtx.
func (s searcher) DoWithContext(req *http.Request, _ int) (answers []*http.Response, err error) {
	ctx := req.Context()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.way.Local, 0)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if !s.way.Shared {
		if err := ipv4.NewPacketConn(conn).SetMulticastInterface(&net.Interface{Index: s.way.Device}); err != nil {
			return nil, err
		}
	}
	end, _ := ctx.Deadline()
	again := time.Now().Add(searchAgain)
	if err := s.send(conn, req); err != nil {
		return nil, err
	}
	buf := make([]byte, maxPacket)
	for heard := 0; heard < maxHeard && len(answers) < maxAnswers; {
		until := end
		if !again.IsZero() && again.Before(end) {
			until = again
		}
		conn.SetReadDeadline(until)
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return answers, nil
		case err != nil && !again.IsZero() && len(answers) == 0 && !time.Now().Before(again):
			again = time.Time{}
			s.send(conn, req) // it was sent before; whether it can be does not matter
			continue
		case err != nil && !time.Now().Before(until):
			return answers, nil
		case err != nil: // such as that a port is unreachable
			heard++
			continue
		}
		heard++
		if from.Addr().Unmap() != s.way.Router {
			continue
		}
		answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(buf[:n])), req)
		if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Location") == "" {
			continue
		}
		if answers = append(answers, answer); len(answers) == 1 {
			again = time.Time{}
			if soon := time.Now().Add(afterFirst); soon.Before(end) {
				end = soon
			}
		}
	}
	return answers, nil
}

// send sends the searches: to the router, and where no other site hears that to
// all (UPnP Device Architecture 1.1, 1.3.2, has both).
func (s searcher) send(conn *net.UDPConn, req *http.Request) error {
	to := []netip.AddrPort{netip.AddrPortFrom(s.way.Router, ssdpPort)}
	if !s.way.Shared {
		to = append(to, netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort))
	}
	header := req.Header.Clone()
	for _, target := range targets {
		header["ST"] = []string{target}
		packet := bytes.NewBufferString(req.Method + " * HTTP/1.1\r\n")
		header.Write(packet)
		packet.WriteString("\r\n")
		for _, addr := range to {
			if _, err := conn.WriteToUDPAddrPort(packet.Bytes(), addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// describe reads what a router says of itself.
func describe(ctx context.Context, web *http.Client, location *url.URL) (*goupnp.RootDevice, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	root := new(goupnp.RootDevice)
	decoder := xml.NewDecoder(resp.Body)
	decoder.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := decoder.Decode(root); err != nil {
		return nil, err
	}
	base := location
	if root.URLBaseStr != "" {
		if base, err = url.Parse(root.URLBaseStr); err != nil {
			return nil, err
		}
	}
	root.SetURLBase(base)
	return root, nil
}

// newWeb returns an HTTP client that speaks to the router alone, follows nobody
// elsewhere, and has limits.
func newWeb(way Way) *http.Client {
	return &http.Client{
		Transport: &fence{router: way.Router, next: &http.Transport{
			DialContext:            (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(way.Local, 0))}).DialContext,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHead,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("a redirection") },
		Timeout:       webTimeout,
	}
}

// fence lets requests to the router pass, and so much of its answers.
type fence struct {
	router netip.Addr
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f *fence) RoundTrip(req *http.Request) (*http.Response, error) {
	host, err := netip.ParseAddr(req.URL.Hostname())
	if err != nil || host != f.router || req.URL.Scheme != "http" {
		return nil, errors.New("not an address of the router")
	}
	resp, err := f.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}
