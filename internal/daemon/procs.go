// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gcPercent lets the heap grow to three times what is in use: what quic-go
// allocates for each packet is short-lived, and a gateway's heap is small.
// Figures are in docs/performance.md. But what a hostile peer has us keep must
// not count three times: above heapGoal the heap grows by leastGarbage only, or
// by leastPercent where a hub with many peers has much in use.
const (
	gcPercent    = 200
	leastPercent = 25
	heapGoal     = 28 << 20
	leastGarbage = 10 << 20
)

// garbage says how much the heap may grow until it is collected.
type garbage struct{ percent int }

// follow sets that by what is in use, and is called again and again.
func (g *garbage) follow() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	const step = 10 // to set it stops all goroutines for a moment
	p := percentFor(live[0].Value.Uint64())
	if p < g.percent-step || p > g.percent+step || p == gcPercent && p != g.percent {
		debug.SetGCPercent(p)
		g.percent = p
	}
}

// percentFor returns by how many percent a heap may grow of which so many bytes
// are in use.
func percentFor(live uint64) int {
	garbage := uint64(leastGarbage)
	if live+garbage < heapGoal {
		garbage = heapGoal - live
	}
	return int(min(gcPercent, max(leastPercent, 100*garbage/max(live, 1))))
}

// procs says how many processors Go uses at once. A goroutine that wakes
// another one on a second processor costs more than the work it hands over, as
// long as one processor is enough; and where all are busy with other work, a
// second one does not bring anything either. So there is one, and more while
// what there is is used up and others of the machine are idle:
//
//	           used > 0.85 of them, one idle
//	  ------------------------------------------->
//	n                                              n + 1
//	  <-------------------------------------------
//	    used < 0.5 of n for two seconds
type procs struct {
	most int // GOMAXPROCS as Go found it: the machine, or its share of it
	n    int
	low  int // samples in a row with too little to do

	last  time.Time
	used  time.Duration // by this process
	idled time.Duration // by the machine's processors together
}

const (
	procsEvery = 200 * time.Millisecond
	procsLow   = 10 // samples
)

// followLoad sets GOMAXPROCS and the garbage collector until ctx ends. An
// operator who has set either by the environment has decided.
func followLoad(ctx context.Context, log *slog.Logger) {
	setGC, setProcs := os.Getenv("GOGC") == "", os.Getenv("GOMAXPROCS") == ""
	g := garbage{percent: gcPercent}
	if setGC {
		defer debug.SetGCPercent(debug.SetGCPercent(g.percent))
	}
	p := procs{most: runtime.GOMAXPROCS(0), n: 1}
	if setProcs {
		defer runtime.GOMAXPROCS(p.most)
		runtime.GOMAXPROCS(p.n)
	}
	tick := time.NewTicker(procsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if setGC {
				g.follow()
			}
			if !setProcs {
				continue
			}
			if n := p.next(now, processTime(), idleTime); n != p.n {
				p.n = n
				runtime.GOMAXPROCS(n)
				log.Debug("processors", "count", n)
			}
		}
	}
}

// next returns how many processors to use from now on. used is the time that
// this process has run, idled reads how long the machine's processors did not;
// that is asked only when it matters.
func (p *procs) next(now time.Time, used time.Duration, idled func() (time.Duration, bool)) int {
	span, load := now.Sub(p.last), used-p.used
	first := p.last.IsZero()
	p.last, p.used = now, used
	busy := load > span*17/20*time.Duration(p.n)
	if p.n < p.most && busy {
		idle, ok := idled()
		before := p.idled
		p.idled = idle
		// A whole processor need not be idle: with it the load spreads.
		if ok && !first && before != 0 && idle-before > span/2 {
			p.low = 0
			return p.n + 1
		}
		return p.n
	}
	p.idled = 0
	if p.n > 1 && load < span/2*time.Duration(p.n) {
		if p.low++; p.low >= procsLow {
			p.low = 0
			return p.n - 1
		}
		return p.n
	}
	p.low = 0
	return p.n
}

// processTime returns how long this process has run, in user and kernel mode.
// The system call is an ordinary one, unlike unix.Getrusage: it wakes Go's
// monitor, which the raw ones of the data plane do not (docs/design.md, "System
// calls").
func processTime() time.Duration {
	var u unix.Rusage
	// Safe: the kernel writes one struct rusage, and keeps no pointer to it.
	if _, _, errno := unix.Syscall(unix.SYS_GETRUSAGE, unix.RUSAGE_SELF, uintptr(unsafe.Pointer(&u)), 0); errno != 0 {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// idleTime returns how long the machine's processors have been idle, summed,
// from the first line of /proc/stat: cpu user nice system idle iowait ...
func idleTime() (time.Duration, bool) {
	const tick = 10 * time.Millisecond // USER_HZ
	stat, err := os.ReadFile("/proc/stat")
	line, _, ok := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line)
	if err != nil || !ok || len(fields) < 6 {
		return 0, false
	}
	var sum time.Duration
	for _, f := range fields[4:6] {
		n, err := strconv.ParseUint(string(f), 10, 62)
		if err != nil {
			return 0, false
		}
		sum += time.Duration(n) * tick
	}
	return sum, true
}
