// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTally(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []string
		want string
		ok   bool
	}{
		{
			name: "all pass",
			in: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"skip","Package":"p","Test":"TestB"}`,
				`{"Action":"output","Package":"p","Output":"PASS\n"}`,
				`{"Action":"pass","Package":"p","Elapsed":1.5}`,
				`{"Action":"skip","Package":"empty","Elapsed":0}`,
			},
			want: "ok    p  1.5s\n1 passed, 0 failed, 1 skipped\n",
			ok:   true,
		},
		{
			name: "a test fails",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"x_test.go:1: wrong\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p","Test":"TestB"}`,
				`{"Action":"fail","Package":"p","Elapsed":0.1}`,
			},
			want: "p: x_test.go:1: wrong\nFAIL  p  0.1s\n1 passed, 1 failed\n",
		},
		{
			name: "a package does not build",
			in: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"x.go:1: syntax error\n"}`,
				`{"ImportPath":"p","Action":"build-fail"}`,
				`{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}`,
				`{"Action":"pass","Package":"q","Test":"TestB"}`,
				`{"Action":"pass","Package":"q","Elapsed":0}`,
			},
			want: "x.go:1: syntax error\nFAIL  p  0.0s\nFAIL p [build failed]\nok    q  0.0s\n1 passed, 1 failed\n",
		},
		{
			name: "a package ends in the middle of a test",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"exit\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":0}`,
			},
			want: "FAIL  p  0.0s\nexit\n0 passed, 1 failed\n",
		},
		{
			name: "go test is killed",
			in: []string{
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"at work\n"}`,
			},
			want: "--- no end: p TestB\nat work\n1 passed, 1 failed\n",
		},
		{
			name: "the go command's own words",
			in:   []string{"go: no go.mod"},
			want: "go: no go.mod\nno test ran\n0 passed, 0 failed\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			ok, err := tally(strings.NewReader(strings.Join(tt.in, "\n")+"\n"), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != tt.ok {
				t.Errorf("ok = %t, want %t", ok, tt.ok)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}
