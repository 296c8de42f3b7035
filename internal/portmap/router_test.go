// SPDX-License-Identifier: Apache-2.0

package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The protocols, against routers on addresses of loopback. Ports of the protocols
// are fixed, so each router has an address of its own.

// routers counts those that were given an address, from where other processes hardly do.
var routers atomic.Uint32

func init() { routers.Store(rand.Uint32()) }

// loopWay returns the way to a router that is nobody's yet.
func loopWay(t *testing.T) Way {
	t.Helper()
	n := routers.Add(1)
	router := netip.AddrFrom4([4]byte{127, byte(2 + n/254/256%250), byte(n / 254), byte(1 + n%254)})
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(router, 0)))
	if err != nil {
		t.Skipf("no address %s: %v", router, err) // not all systems have all of 127/8
	}
	conn.Close()
	return Way{Router: router, Local: netip.MustParseAddr("127.0.0.1"), Device: 1, Shared: true}
}

// serveUDP answers packets to a port of the router until the test ends.
func serveUDP(t *testing.T, way Way, port uint16, answer func(request []byte, reply func([]byte))) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(way.Router, port)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			answer(slices.Clone(buf[:n]), func(b []byte) { conn.WriteToUDPAddrPort(b, from) })
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// pmpRouter speaks NAT-PMP.
type pmpRouter struct {
	mu       sync.Mutex
	epoch    uint32
	addr     netip.Addr
	shift    uint16
	code     uint16 // result of all
	life     uint32 // granted; 0: what was asked for
	requests [][]byte
	mangle   func([]byte) []byte
}

func (r *pmpRouter) serve(t *testing.T) Way {
	way := loopWay(t)
	serveUDP(t, way, 5351, func(q []byte, reply func([]byte)) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, q)
		if len(q) < 2 {
			return
		}
		a := []byte{0, q[1] | 0x80}
		a = binary.BigEndian.AppendUint16(a, r.code)
		a = binary.BigEndian.AppendUint32(a, r.epoch)
		switch q[1] {
		case 0:
			a = append(a, r.addr.AsSlice()...)
		case 1:
			port, life := binary.BigEndian.Uint16(q[6:]), binary.BigEndian.Uint32(q[8:])
			if life != 0 {
				port += r.shift
				if r.life != 0 {
					life = r.life
				}
			}
			a = append(a, q[4:6]...)
			a = binary.BigEndian.AppendUint16(a, port)
			a = binary.BigEndian.AppendUint32(a, life)
		}
		if r.mangle != nil {
			a = r.mangle(a)
		}
		if a != nil {
			reply(a)
		}
	})
	return way
}

var outsideAddr = netip.MustParseAddr("203.0.113.7")

func open(t *testing.T, f func(context.Context, Way, uint16) (client, error), way Way) client {
	t.Helper()
	c, err := f(t.Context(), way, ourPort)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lookAdd does what a Mapper does at first.
func lookAdd(t *testing.T, c client, wantPort uint16, wantLife time.Duration) {
	t.Helper()
	addr, forgot, err := c.look(t.Context(), 0)
	if err != nil || addr != outsideAddr || forgot {
		t.Errorf("look: %v, %v, %v; want %v, false", addr, forgot, err, outsideAddr)
	}
	port, life, err := c.add(t.Context(), ourPort)
	if err != nil || port != wantPort || life != wantLife {
		t.Errorf("add: %v, %v, %v; want %v, %v", port, life, err, wantPort, wantLife)
	}
}

func TestPMP(t *testing.T) {
	t.Parallel()
	r := &pmpRouter{addr: outsideAddr, shift: 3, epoch: 1000}
	c := open(t, openPMP, r.serve(t))
	lookAdd(t, c, ourPort+3, lifetime)

	r.mu.Lock()
	r.life = 0xffffffff
	r.mu.Unlock()
	if _, life, err := c.add(t.Context(), ourPort); err != nil || life != lifetime {
		t.Errorf("a lease of 136 years: %v, %v, want %v", life, err, lifetime)
	}

	// A clock that goes back is a restart, until it was asked again.
	r.mu.Lock()
	r.epoch = 3
	r.mu.Unlock()
	for range 2 {
		if _, forgot, err := c.look(t.Context(), ourPort); !forgot || err != nil {
			t.Errorf("look at a router that was restarted: %v, %v", forgot, err)
		}
	}
	c.add(t.Context(), ourPort)
	if _, forgot, _ := c.look(t.Context(), ourPort); forgot {
		t.Error("forgotten after it was asked again")
	}

	if err := c.remove(t.Context(), ourPort+3); err != nil {
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if got, want := fmt.Sprintf("%x", r.requests[len(r.requests)-1]), "000100001151000000000000"; got != want {
		t.Errorf("removed by %s, want %s", got, want)
	}
}

func TestPMPClock(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for _, tt := range []struct {
		after  time.Duration
		epoch  uint32
		forgot bool
	}{
		{time.Hour, 1000 + 3600, false},
		{time.Hour, 1000 + 3600*7/8 - 2, false}, // a slow clock
		{time.Hour, 1000 + 3600*7/8 - 3, true},
		{time.Hour, 5, true},
		{0, 1000, false},
		{time.Second, 998, false}, // an answer that was overtaken
		{time.Hour, 0xffffffff, false},
	} {
		c := &pmp{epoch: 1000, at: start}
		if c.note(tt.epoch, start.Add(tt.after)); c.forgot != tt.forgot {
			t.Errorf("epoch %d after %v: forgot %v, want %v", tt.epoch, tt.after, c.forgot, tt.forgot)
		}
	}
}

func TestPMPRefused(t *testing.T) {
	t.Parallel()
	for code := uint16(1); code < 8; code++ {
		r := &pmpRouter{addr: outsideAddr, code: code}
		c := open(t, openPMP, r.serve(t))
		_, _, err := c.look(t.Context(), 0)
		var no *refusal
		if want := code != 1 && code != 5; errors.As(err, &no) != want || err == nil {
			t.Errorf("result %d: %v; a refusal: %v", code, err, want)
		}
	}
}

// Whatever else comes is an error, in two seconds.
func TestPMPGarbage(t *testing.T) {
	t.Parallel()
	for name, mangle := range map[string]func([]byte) []byte{
		"nothing":     func([]byte) []byte { return nil },
		"empty":       func([]byte) []byte { return []byte{} },
		"short":       func(b []byte) []byte { return b[:7] },
		"version 2":   func(b []byte) []byte { b[0] = 2; return b },
		"other op":    func(b []byte) []byte { b[1]++; return b },
		"text":        func([]byte) []byte { return []byte("HTTP/1.1 200 OK\r\n\r\n") },
		"all ones":    func(b []byte) []byte { return slices.Repeat([]byte{0xff}, len(b)) },
		"other port":  func(b []byte) []byte { b[8]++; return b },
		"port 0":      func(b []byte) []byte { b[10], b[11] = 0, 0; return b },
		"no lifetime": func(b []byte) []byte { clear(b[12:]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &pmpRouter{addr: outsideAddr, mangle: func(b []byte) []byte {
				if len(b) < 16 {
					b = append(b, 0, 0, 0, 0)[:len(b)]
				}
				return mangle(b)
			}}
			c := open(t, openPMP, r.serve(t))
			begin := time.Now()
			port, _, err := c.add(t.Context(), ourPort)
			var no *refusal
			if err == nil || errors.As(err, &no) {
				t.Errorf("port %d, %v", port, err)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestPMPNobody(t *testing.T) {
	t.Parallel()
	way := loopWay(t)
	begin := time.Now()
	if _, _, err := open(t, openPMP, way).look(t.Context(), 0); err == nil {
		t.Error("nobody answered, without an error")
	}
	if took := time.Since(begin); took > 200*time.Millisecond {
		t.Errorf("took %v, though the port is not open", took)
	}
}

// A stop is not held up by a router that says nothing.
func TestPMPStop(t *testing.T) {
	t.Parallel()
	r := &pmpRouter{mangle: func([]byte) []byte { return nil }}
	c := open(t, openPMP, r.serve(t))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := c.remove(ctx, ourPort); err == nil {
		t.Error("removed, without an answer")
	}
	if took := time.Since(begin); took > 600*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// upnpRouter speaks SSDP and UPnP. It keeps one table of mappings.
type upnpRouter struct {
	kind     string // of its service
	addr     string
	faults   map[string]int // by action
	taken    map[string]int // external port to code
	forever  bool           // grants no leases
	page     http.HandlerFunc
	actions  http.HandlerFunc
	location string // instead of its own
	base     string // URLBase
	control  string // controlURL
	answers  func(reply func([]byte), honest string)

	mu      sync.Mutex
	done    []string // actions
	entries map[string]string
	server  *httptest.Server
}

const ipConnection2 = "urn:schemas-upnp-org:service:WANIPConnection:2"

var argument = regexp.MustCompile(`<(New\w+)>([^<]*)</`)

func (r *upnpRouter) serve(t *testing.T) Way {
	way := loopWay(t)
	if r.kind == "" {
		r.kind = ipConnection2
	}
	if r.addr == "" {
		r.addr = outsideAddr.String()
	}
	if r.control == "" {
		r.control = "/ctl"
	}
	r.entries = make(map[string]string)
	listener, err := net.Listen("tcp", netip.AddrPortFrom(way.Router, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/desc.xml", func(w http.ResponseWriter, q *http.Request) {
		if r.page != nil {
			r.page(w, q)
			return
		}
		fmt.Fprintf(w, `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">%s<device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device><deviceList><device>
<serviceList><service><serviceType>%s</serviceType><controlURL>%s</controlURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>`, r.base, r.kind, r.control)
	})
	mux.HandleFunc("/ctl", func(w http.ResponseWriter, q *http.Request) {
		if r.actions != nil {
			r.actions(w, q)
			return
		}
		r.act(w, q)
	})
	r.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux}}
	r.server.Start()
	t.Cleanup(func() { r.server.CloseClientConnections(); r.server.Close() })
	serveUDP(t, way, ssdpPort, func(q []byte, reply func([]byte)) {
		st := regexp.MustCompile(`(?m)^ST: (.*)\r$`).FindSubmatch(q)
		if st == nil || !strings.HasPrefix(string(q), "M-SEARCH * HTTP/1.1\r\n") {
			t.Errorf("no search: %q", q)
			return
		}
		if !strings.HasSuffix(string(st[1]), ":1") {
			return
		}
		location := r.location
		if location == "" {
			location = r.server.URL + "/desc.xml"
		}
		honest := fmt.Sprintf("HTTP/1.1 200 OK\r\nST: %s\r\nUSN: uuid:1::%s\r\nLOCATION: %s\r\nEXT:\r\n\r\n", st[1], st[1], location)
		if r.answers != nil {
			r.answers(reply, honest)
			return
		}
		reply([]byte(honest))
	})
	return way
}

// act does what a SOAP request asks for.
func (r *upnpRouter) act(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, action, _ := strings.Cut(strings.Trim(q.Header.Get("SOAPACTION"), `"`), "#")
	body, _ := io.ReadAll(q.Body)
	args := make(map[string]string)
	for _, m := range argument.FindAllStringSubmatch(string(body), -1) {
		args[m[1]] = m[2]
	}
	port := args["NewExternalPort"]
	fault := func(code int) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode>
<faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode>
<errorDescription>words of the router</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
	}
	r.done = append(r.done, strings.TrimSpace(action+" "+port+" "+args["NewLeaseDuration"]))
	answer := ""
	switch code := r.faults[action]; {
	case code != 0:
		fault(code)
		return
	case action == "GetExternalIPAddress":
		answer = "<NewExternalIPAddress>" + r.addr + "</NewExternalIPAddress>"
	case action == "AddPortMapping" || action == "AddAnyPortMapping":
		if code := r.taken[port]; code != 0 {
			if action == "AddPortMapping" {
				fault(code)
				return
			}
			port = "50001"
		}
		if r.forever && args["NewLeaseDuration"] != "0" {
			fault(faultPermanentOnly)
			return
		}
		r.entries[port] = args["NewInternalClient"] + ":" + args["NewInternalPort"] + "/" + args["NewProtocol"]
		if action == "AddAnyPortMapping" {
			answer = "<NewReservedPort>" + port + "</NewReservedPort>"
		}
	case action == "GetSpecificPortMappingEntry":
		host, internal, ok := strings.Cut(strings.TrimSuffix(r.entries[port], "/UDP"), ":")
		if !ok {
			fault(faultNoSuchEntry)
			return
		}
		answer = "<NewInternalPort>" + internal + "</NewInternalPort><NewInternalClient>" + host + "</NewInternalClient><NewEnabled>1</NewEnabled>" +
			"<NewPortMappingDescription>x</NewPortMappingDescription><NewLeaseDuration>7</NewLeaseDuration>"
	case action == "DeletePortMapping":
		delete(r.entries, port)
	default:
		fault(faultInvalidAction)
		return
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%sResponse xmlns:u="%s">%s</u:%sResponse></s:Body></s:Envelope>`,
		action, r.kind, answer, action)
}

func (r *upnpRouter) entry(port string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[port]
}

// changes returns what was done, without questions, and forgets that.
func (r *upnpRouter) changes() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.done {
		if !strings.HasPrefix(d, "Get") {
			all = append(all, d)
		}
	}
	r.done = nil
	return all
}

func TestUPnP(t *testing.T) {
	t.Parallel()
	const lease = "7200"
	for _, tt := range []struct {
		name   string
		router *upnpRouter
		port   uint16 // 0: any but ours
		life   time.Duration
		done   []string // nil: not checked
	}{
		{name: "IGD 2", router: &upnpRouter{}, port: ourPort, life: lifetime, done: []string{"AddAnyPortMapping 4433 " + lease}},
		{name: "IGD 2 another port", router: &upnpRouter{taken: map[string]int{"4433": faultConflict}}, port: 50001, life: lifetime},
		{name: "IGD 2 without any", router: &upnpRouter{faults: map[string]int{"AddAnyPortMapping": faultInvalidAction}},
			port: ourPort, life: lifetime, done: []string{"AddAnyPortMapping 4433 " + lease, "AddPortMapping 4433 " + lease}},
		{name: "IGD 2 permanent", router: &upnpRouter{forever: true},
			port: ourPort, done: []string{"AddAnyPortMapping 4433 " + lease, "AddPortMapping 4433 0"}},
		{name: "IGD 1", router: &upnpRouter{kind: "urn:schemas-upnp-org:service:WANIPConnection:1"},
			port: ourPort, life: lifetime, done: []string{"AddPortMapping 4433 " + lease}},
		{name: "IGD 1 permanent", router: &upnpRouter{kind: "urn:schemas-upnp-org:service:WANIPConnection:1", forever: true},
			port: ourPort, done: []string{"AddPortMapping 4433 " + lease, "AddPortMapping 4433 0"}},
		{name: "IGD 1 taken", router: &upnpRouter{kind: "urn:schemas-upnp-org:service:WANIPConnection:1", taken: map[string]int{"4433": faultConflict}},
			life: lifetime},
		{name: "PPP", router: &upnpRouter{kind: "urn:schemas-upnp-org:service:WANPPPConnection:1"},
			port: ourPort, life: lifetime, done: []string{"AddPortMapping 4433 " + lease}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := tt.router
			c := open(t, openUPnP, r.serve(t))
			port, life, err := c.add(t.Context(), ourPort)
			if err != nil || life != tt.life || port != tt.port && (tt.port != 0 || port == ourPort) {
				t.Fatalf("add: %d, %v, %v; want %d, %v", port, life, err, tt.port, tt.life)
			}
			if done := r.changes(); tt.done != nil && !slices.Equal(done, tt.done) {
				t.Errorf("asked %q, want %q", done, tt.done)
			}
			text := fmt.Sprint(port)
			if got, want := r.entry(text), "127.0.0.1:4433/UDP"; got != want {
				t.Errorf("entry %q, want %q", got, want)
			}
			addr, forgot, err := c.look(t.Context(), port)
			if addr != outsideAddr || forgot || err != nil {
				t.Errorf("look: %v, %v, %v", addr, forgot, err)
			}
			// A renewal knows what the router does not take.
			c.add(t.Context(), port)
			if done := r.changes(); len(done) != 1 {
				t.Errorf("renewed by %q", done)
			}
			if err := c.remove(t.Context(), port); err != nil || r.entry(text) != "" {
				t.Errorf("removed: %v, %q is left", err, r.entry(text))
			}
			if _, forgot, err := c.look(t.Context(), port); !forgot || err != nil {
				t.Errorf("look at what is not there: %v, %v", forgot, err)
			}
		})
	}
}

func TestUPnPRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		router *upnpRouter
		want   string // "": no refusal
	}{
		{"address", &upnpRouter{faults: map[string]int{"GetExternalIPAddress": faultNotAuthorized}}, "UPnP: not authorized"},
		{"not authorized", &upnpRouter{faults: map[string]int{"AddAnyPortMapping": faultNotAuthorized}}, "UPnP: not authorized"},
		{"no room", &upnpRouter{faults: map[string]int{"AddAnyPortMapping": faultNoPorts}}, "UPnP: the router has no room for more"},
		{"failed", &upnpRouter{faults: map[string]int{"AddAnyPortMapping": faultActionFailed}}, "UPnP: the router says that it failed"},
		{"unknown", &upnpRouter{faults: map[string]int{"AddAnyPortMapping": 899}}, "UPnP: error 899"},
		{"always taken", &upnpRouter{faults: map[string]int{"AddAnyPortMapping": faultConflict}}, "UPnP: all ports that were tried are taken"},
		{"nothing will do", &upnpRouter{faults: map[string]int{"AddAnyPortMapping": faultInvalidArgs, "AddPortMapping": faultInvalidArgs}}, "UPnP: error 402"},
		{"no address", &upnpRouter{addr: "0.0.0.0"}, ""},
		{"an address of nothing", &upnpRouter{addr: "203.0.113.7.example"}, ""},
		{"other service", &upnpRouter{kind: "urn:schemas-upnp-org:service:Printing:1"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := openUPnP(t.Context(), tt.router.serve(t), ourPort)
			if err == nil {
				_, _, err = c.add(t.Context(), ourPort)
			}
			var no *refusal
			if err == nil || errors.As(err, &no) != (tt.want != "") || tt.want != "" && err.Error() != tt.want {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "words") {
				t.Errorf("the router's own words: %v", err)
			}
			if n := len(tt.router.changes()); n > portTries {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// Who sends us elsewhere is not followed: nobody but the router is spoken to.
func TestUPnPElsewhere(t *testing.T) {
	t.Parallel()
	touched := func(t *testing.T) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Error("somebody else was spoken to")
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close(); <-done })
		return "http://" + l.Addr().String()
	}
	for name, change := range map[string]func(t *testing.T, r *upnpRouter, url string){
		"location": func(t *testing.T, r *upnpRouter, url string) { r.location = url + "/desc.xml" },
		"location by name": func(t *testing.T, r *upnpRouter, url string) {
			r.location = strings.Replace(url, "127.0.0.1", "localhost", 1)
		},
		"location by user": func(t *testing.T, r *upnpRouter, url string) {
			r.location = strings.Replace(url, "//", "//127.2.2.2@", 1)
		},
		"location of https": func(t *testing.T, r *upnpRouter, url string) { r.location = strings.Replace(url, "http", "https", 1) },
		"location of file":  func(t *testing.T, r *upnpRouter, url string) { r.location = "file:///etc/passwd" },
		"location relative": func(t *testing.T, r *upnpRouter, url string) { r.location = "/desc.xml" },
		"location mapped": func(t *testing.T, r *upnpRouter, url string) {
			r.location = strings.Replace(url, "127.0.0.1", "[::ffff:127.0.0.1]", 1)
		},
		"base":    func(t *testing.T, r *upnpRouter, url string) { r.base = "<URLBase>" + url + "</URLBase>" },
		"control": func(t *testing.T, r *upnpRouter, url string) { r.control = url + "/ctl" },
		"redirection": func(t *testing.T, r *upnpRouter, url string) {
			r.page = func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, url+"/desc.xml", http.StatusFound) }
		},
		"redirection of a request": func(t *testing.T, r *upnpRouter, url string) {
			r.actions = func(w http.ResponseWriter, q *http.Request) {
				http.Redirect(w, q, url+"/ctl", http.StatusTemporaryRedirect)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &upnpRouter{}
			change(t, r, touched(t))
			if _, err := openUPnP(t.Context(), r.serve(t), ourPort); err == nil {
				t.Error("a router was found")
			}
		})
	}
}

// Answers that are long, slow, many, or not what was asked for.
func TestUPnPHostile(t *testing.T) {
	t.Parallel()
	endless := func(before string, each string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			io.WriteString(w, before)
			for q.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(each, 1000)); err != nil {
					return
				}
			}
		}
	}
	slow := func(w http.ResponseWriter, q *http.Request) {
		for q.Context().Err() == nil {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-q.Context().Done():
			}
		}
	}
	for name, r := range map[string]*upnpRouter{
		"endless description": {page: endless("<root>", "<device></device>")},
		"deep description":    {page: endless("<root>", "<device>")},
		"endless name":        {page: endless("<root><device><friendlyName>", "x")},
		"slow description":    {page: slow},
		"no description":      {page: func(w http.ResponseWriter, q *http.Request) {}},
		"garbage":             {page: func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "\x00\xff<<<") }},
		"status 500":          {page: func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(500) }},
		"entities":            {page: endless(`<!DOCTYPE r [<!ENTITY a "aaaa">]><root><device><friendlyName>`, "&a;")},
		"endless action":      {actions: endless(`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`, "<a/>")},
		"slow action":         {actions: slow},
		"garbage action":      {actions: func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "\x00\xff<<<") }},
		"no action":           {actions: func(w http.ResponseWriter, q *http.Request) {}},
		"long address":        {addr: strings.Repeat("1", 100_000)},
		"no answer to a search": {answers: func(reply func([]byte), _ string) {
			for _, text := range []string{"", "HTTP/1.1 \r\n", "\x00", "HTTP/1.1 404 No\r\nLocation: http://127.0.0.1/\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"} {
				reply([]byte(text))
			}
		}},
		"many bad locations":   {answers: func(reply func([]byte), _ string) { many(reply, "/none%d") }},
		"many other locations": {answers: func(reply func([]byte), _ string) { many(reply, "http://127.0.0.1:%d/") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way := r.serve(t)
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), asking)
			defer cancel()
			_, err := openUPnP(ctx, way, ourPort)
			var no *refusal
			if err == nil || errors.As(err, &no) {
				t.Errorf("%v", err)
			}
			if took := time.Since(begin); took > searching+2*webTimeout {
				t.Errorf("took %v", took)
			}
		})
	}
}

func many(reply func([]byte), location string) {
	for i := range 2000 {
		reply(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nLocation: "+location+"\r\n\r\n", i+1))
	}
}

// An answer from another address than the router's is none.
func TestUPnPOtherAnswers(t *testing.T) {
	t.Parallel()
	liar, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopWay(t).Router, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	way := loopWay(t)
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(way.Router, ssdpPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	found := make(chan []*url.URL)
	go func() { found <- search(t.Context(), way) }()
	buf := make([]byte, maxPacket)
	_, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(by *net.UDPConn, path string) {
		by.WriteToUDPAddrPort(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nLocation: http://%s/%s\r\n\r\n", way.Router, path), from)
	}
	answer(liar, "a-lie")
	answer(conn, "the-truth")
	answer(liar, "another-lie")
	if got, want := fmt.Sprint(<-found), fmt.Sprintf("[http://%s/the-truth]", way.Router); got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

// A stop does not wait for a search, nor for a page.
func TestUPnPStop(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*upnpRouter{
		"search": {answers: func(func([]byte), string) {}},
		"page":   {page: func(w http.ResponseWriter, q *http.Request) { <-q.Context().Done() }},
		"action": {actions: func(w http.ResponseWriter, q *http.Request) { <-q.Context().Done() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way := r.serve(t)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if _, err := openUPnP(ctx, way, ourPort); err == nil {
				t.Error("a router was found")
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
