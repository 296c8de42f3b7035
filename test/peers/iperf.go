// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tcp is what one run of iperf3 found.
type tcp struct {
	Mbps        float64 // received, of payload, all streams and directions
	GB          float64 // received, 10^9 bytes
	Retransmits float64
	CPU         float64 // seconds of the daemons meanwhile
	AllCPU      float64 // seconds of the whole machine meanwhile
}

// retransmitsPerGB, cpuPerGB and allPerGB are per 10^9 bytes of payload.
func (t tcp) retransmitsPerGB() float64 { return t.Retransmits / t.GB }
func (t tcp) cpuPerGB() float64         { return t.CPU / t.GB }
func (t tcp) allPerGB() float64         { return t.AllCPU / t.GB }

type iperfSum struct {
	Bytes       float64 `json:"bytes"`
	BPS         float64 `json:"bits_per_second"`
	Retransmits float64 `json:"retransmits"`
}

type iperfResult struct {
	Error string `json:"error"`
	End   struct {
		Sent         iperfSum `json:"sum_sent"`
		Received     iperfSum `json:"sum_received"`
		BackSent     iperfSum `json:"sum_sent_bidir_reverse"`
		BackReceived iperfSum `json:"sum_received_bidir_reverse"`
	} `json:"end"`
}

// iperf runs TCP from host A to host B with CUBIC, flags may turn it round. It
// fails when what it counted did not cross the WAN.
func (r *rig) iperf(ctx context.Context, length time.Duration, flags ...string) (tcp, error) {
	txBefore, rxBefore, err := r.wanBytes()
	if err != nil {
		return tcp{}, err
	}
	cpuBefore, allBefore := r.used().cpu, machineCPU()
	ctx, cancel := context.WithTimeoutCause(ctx, length+iperfLimit, fmt.Errorf("no end within %v", length+iperfLimit))
	defer cancel()
	args := append([]string{"--client", hostAddrB, "--json", "--congestion", "cubic",
		"--time", strconv.Itoa(int(length.Seconds()))}, flags...)
	text, err := output(ctx, r.hostA, "iperf3", args...)
	t := tcp{CPU: (r.used().cpu - cpuBefore).Seconds(), AllCPU: machineCPU() - allBefore}
	var result iperfResult
	if jsonErr := json.Unmarshal([]byte(text), &result); jsonErr == nil && result.Error != "" {
		return t, fmt.Errorf("iperf3: %s", result.Error)
	} else if err == nil {
		err = jsonErr
	}
	if err != nil {
		return t, err
	}
	end := result.End
	t.Mbps = (end.Received.BPS + end.BackReceived.BPS) / 1e6
	t.GB = (end.Received.Bytes + end.BackReceived.Bytes) / 1e9
	t.Retransmits = end.Sent.Retransmits + end.BackSent.Retransmits
	if t.GB == 0 {
		return t, fmt.Errorf("nothing arrived")
	}
	if err := r.alive(); err != nil {
		return t, err
	}
	tx, rx, err := r.wanBytes()
	if err != nil {
		return t, err
	}
	if crossed := (tx - txBefore + rx - rxBefore) / 1e9; !r.peer.straight && crossed < 0.95*t.GB {
		return t, fmt.Errorf("only %.3f GB crossed the WAN of %.3f that arrived: the program was passed by, or compresses", crossed, t.GB)
	}
	return t, nil
}

// machineCPU returns the seconds that all processors were busy, interrupts
// included.
func machineCPU() float64 {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	busy := 0.0
	for i, word := range strings.Fields(line) {
		ticks, err := strconv.ParseFloat(word, 64)
		if err != nil || i == 4 || i == 5 || i > 8 { // the name; idle, iowait; guests are in user already
			continue
		}
		busy += ticks
	}
	return busy * clockTick.Seconds()
}
