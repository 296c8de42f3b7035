// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/l2bridge/l2bridge/bridge"
	"github.com/l2bridge/l2bridge/internal/frame"
	"github.com/l2bridge/l2bridge/transport/identity"
)

// Files of ours in the state directory.
const (
	membersFile = "members.json" // addresses of members, learned when joining
	learnedFile = "learned.json" // what members have announced of themselves
	staticsFile = "fdb.json"     // static entries of the MAC table
	askedFile   = "asked.json"   // the network that this site asks to join
)

func saveMembers(dir *identity.Dir, addrs []string) error {
	return writeJSON(dir, membersFile, addrs)
}

func loadMembers(dir *identity.Dir) (addrs []string, err error) {
	return addrs, readJSON(dir, membersFile, &addrs)
}

// asked is the network whose phrase was shown to a person here, until it has let
// this site in: then all is 0.
type asked struct {
	CA identity.ID `json:"ca"`
}

func saveAsked(dir *identity.Dir, ca identity.ID) error { return writeJSON(dir, askedFile, asked{ca}) }

func loadAsked(dir *identity.Dir) (ca identity.ID, err error) {
	var a asked
	err = readJSON(dir, askedFile, &a)
	return a.CA, err
}

// loadLearned returns the announcements of other members. They are signed; whoever
// reads them judges them. A file that is damaged is no loss: all is learned again.
func (s *site) loadLearned() (announcements [][]byte) {
	if err := readJSON(s.dir, learnedFile, &announcements); err != nil {
		s.log.Warn("members learned are not read", "error", err)
		return nil
	}
	return announcements
}

// keepLearned stores what was learned of other members. Without it they are
// learned again from the first one that is met.
func (s *site) keepLearned(announcements [][]byte) {
	if s.left.Load() {
		return
	}
	s.forgetMembers(s.mesh.Gone())
	if err := writeJSON(s.dir, learnedFile, fitting(announcements)); err != nil {
		s.log.Warn("members learned are not stored", "error", err)
	}
}

// fitting leaves out the longest announcements of more than a file may hold that is to
// be read again. Those of honest members are short.
func fitting(announcements [][]byte) [][]byte {
	const around = len("\t\"\",\n") // in JSON, which has bytes in base64
	all := slices.SortedStableFunc(slices.Values(announcements), func(a, b []byte) int { return cmp.Compare(len(a), len(b)) })
	room := identity.MaxFile - len("[\n]\n")
	for i, a := range all {
		if room -= base64.StdEncoding.EncodedLen(len(a)) + around; room < 0 {
			return all[:i]
		}
	}
	return all
}

// forgetMembers has the addresses that were learned when joining dialled no more
// after a restart, if they are those of one that is gone for good.
func (s *site) forgetMembers(gone []string) {
	all, err := loadMembers(s.dir)
	if err != nil {
		return // the next start says so
	}
	left := slices.DeleteFunc(slices.Clone(all), func(a string) bool { return slices.Contains(gone, a) })
	if len(left) == len(all) {
		return
	}
	if err := saveMembers(s.dir, left); err != nil {
		s.log.Warn("members learned are not stored", "error", err)
	}
}

// static is a static entry as stored.
type static struct {
	MAC  string `json:"mac"`
	VLAN uint16 `json:"vlan,omitempty"`
	Port string `json:"port"`
}

func saveStatics(dir *identity.Dir, sw *bridge.Switch) error {
	all := []static{}
	for station, port := range sw.Statics() {
		all = append(all, static{station.MAC().String(), station.VLAN(), port})
	}
	return writeJSON(dir, staticsFile, all)
}

func loadStatics(dir *identity.Dir, sw *bridge.Switch) error {
	var all []static
	if err := readJSON(dir, staticsFile, &all); err != nil {
		return err
	}
	for _, s := range all {
		mac, err := net.ParseMAC(s.MAC)
		if err != nil || len(mac) != 6 || s.VLAN > 4094 {
			return damaged(dir, staticsFile, fmt.Errorf("entry %q vlan %d is no station", s.MAC, s.VLAN))
		}
		if err := sw.AddStatic(frame.NewStation(mac, s.VLAN), s.Port); err != nil {
			return damaged(dir, staticsFile, err)
		}
	}
	return nil
}

func writeJSON(dir *identity.Dir, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return dir.WriteFile(name, append(data, '\n'))
}

func readJSON(dir *identity.Dir, name string, v any) error {
	data, err := dir.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return damaged(dir, name, err)
	}
	return nil
}

// damaged says that a file does not hold what we wrote. No key is lost with it.
func damaged(dir *identity.Dir, name string, err error) error {
	return fmt.Errorf("state directory %s: %s: %w (mend or remove the file)", dir.Path(), name, err)
}
