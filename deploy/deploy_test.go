// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/config"
)

// The two units say the same but for the name of the network.
func TestUnitsAgree(t *testing.T) {
	body := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "[Unit]")
		return body
	}
	want := strings.NewReplacer(
		"Ethernet segment\n", "Ethernet segment (%i)\n",
		"l2bridge up\n", "l2bridge up -n %i\n",
	).Replace(body("l2bridge.service"))
	if diff := cmp.Diff(want, body("l2bridge@.service")); diff != "" {
		t.Errorf("l2bridge@.service (-want +got):\n%s", diff)
	}
}

func TestReferenceIsTheOneOfConfig(t *testing.T) {
	text, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Reference, string(text)); diff != "" {
		t.Errorf("reference.toml (-want +got):\n%s", diff)
	}
}
