// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/daemon"
	"github.com/l2bridge/l2bridge/internal/sealed"
)

func (a *app) caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Back up the network CA's key, or move it to another site",
		Example: `  l2bridge ca export backup.age
  l2bridge ca import backup.age`,
	}
	group(cmd)
	cmd.AddCommand(a.caExportCommand(), a.caImportCommand())
	return cmd
}

func (a *app) caExportCommand() *cobra.Command {
	var move bool
	var from string
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the network CA's key to a file, encrypted with a pass phrase",
		Long: `Write the network CA's key, and the founder's list of members and invitations,
to a file, encrypted with a pass phrase: l2bridge-NETWORK.age where no FILE is
given, standard output for "-". The file is new, and "age -d" opens it too.
The pass phrase is asked for twice on the terminal, or stands in a file that
only its owner may read.

With --move the key is taken away here once the file has been read back: bring
it to another site of the network with "l2bridge ca import". Anywhere but at
the site that holds the key the exit code is 4.`,
		Example: `  l2bridge ca export /mnt/usb/home.age
  l2bridge ca export --passphrase-file ./phrase - | ssh backup 'cat > home.age'
  l2bridge ca export --move home.age`,
		Args: between(0, 1, "one FILE at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := ""
			if len(args) == 1 {
				file = args[0]
			}
			switch {
			case file == "-" && move:
				return usagef("--move with -: want a FILE, which is read back before the key is taken away")
			case file == "-" && isTerminal(a.stdout):
				return usagef("standard output is a terminal: want a FILE")
			}
			return a.caExport(cmd, file, from, move)
		},
	}
	cmd.Flags().BoolVar(&move, "move", false, "take the key away here once it is in FILE")
	addPassphraseFlag(cmd, &from)
	return cmd
}

func (a *app) caExport(cmd *cobra.Command, file, phraseFile string, move bool) error {
	p, err := caPaths(a.fileConfig(cmd))
	if err != nil {
		return err
	}
	ca, err := a.engine.ReadCA(p.StateDir)
	if err != nil {
		return member(err)
	}
	if file == "" {
		file = "l2bridge-" + ca.Network + ".age"
	}
	if file != "-" {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("%s exists and is not overwritten (name another file, or take it away)", file)
		}
	}
	phrase, err := newPassphrase(cmd.Context(), phraseFile)
	if err != nil {
		return err
	}
	text, err := a.engine.Seal(phrase, ca.Data)
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := a.stdout.Write(text)
		return err
	}
	if err := writeNew(file, text); err != nil {
		return err
	}
	if err := a.readsBack(file, phrase, ca.Data); err != nil {
		return fmt.Errorf("%s is not as it was written, nothing is taken away here: %w", file, err)
	}
	if move {
		if err := a.dropCA(cmd.Context(), p, ca); err != nil {
			return fmt.Errorf("the CA key is in %s, and here as well: %w", file, err)
		}
	}
	return a.answer(map[string]any{"network": ca.Network, "file": file, "moved": move}, func(w io.Writer) {
		fmt.Fprintf(w, "the CA key of network %s is in %s, encrypted\n", ca.Network, file)
		if move {
			fmt.Fprintln(w, `it is here no more. Now, at another site of the network: "l2bridge ca import FILE"`)
		}
	})
}

// caPaths says where the site keeps its things, if it has a CA of l2bridge's.
func caPaths(cfg config.Config, err error) (config.Paths, error) {
	if err == nil && cfg.CAFile != "" {
		err = fmt.Errorf("%w: %s names a CA of your own (ca_file), whose tools do that", daemon.ErrNotFounder, cfg.File)
	}
	return cfg.Paths, err
}

// dropCA takes away what was read of the CA, at the daemon if one runs.
func (a *app) dropCA(ctx context.Context, p config.Paths, ca daemon.CA) error {
	err := control.Dial(p.Socket).DropCA(ctx, ca.Sum)
	if errors.Is(err, control.ErrNotRunning) {
		return a.engine.DropCA(p.StateDir, ca.Sum)
	}
	return err
}

func (a *app) caImportCommand() *cobra.Command {
	var site, from string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make this site the holder of the network CA's key in a file",
		Long: `Make this site the holder of the network CA's key in a file that "ca export"
wrote: "invite", "approve" and "revoke" work here from then on, and no more
where the key was.

On a machine that is no member of a network, as after the founder's was lost,
this makes it one: in the lost one's place and under its name, or with --site
under a name of its own. "l2bridge up" then runs it.`,
		Example: `  l2bridge ca import home.age
  l2bridge ca import --passphrase-file ./phrase home.age`,
		Args: between(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkNewSite(cmd, site); err != nil {
				return err
			}
			return a.caImport(cmd, args[0], from, site)
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "where there is no network yet: join under `NAME`")
	addPassphraseFlag(cmd, &from)
	return cmd
}

func (a *app) caImport(cmd *cobra.Command, file, phraseFile, site string) error {
	p, err := caPaths(a.runConfig(cmd)) // a new machine may have no config file yet
	if err != nil {
		return err
	}
	text, err := readUpTo(file, sealed.MaxBytes)
	if err != nil {
		return err
	}
	phrase, err := passphrase(cmd.Context(), phraseFile)
	if err != nil {
		return err
	}
	data, err := a.engine.Open(phrase, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	name := ""
	err = control.ErrNotRunning
	if site == "" { // what runs is a member and has its name
		name, err = control.Dial(p.Socket).ImportCA(cmd.Context(), data)
	}
	running := err == nil
	if errors.Is(err, control.ErrNotRunning) {
		name, err = a.engine.ImportCA(p.StateDir, data, site)
	}
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"site": name}, func(w io.Writer) {
		fmt.Fprintf(w, "site %s holds the network's CA key now\n", name)
		if !running {
			fmt.Fprintln(w, `run it with "l2bridge up"`)
		}
	})
}

// writeNew makes a file that only its owner may read, whole or not at all, and on
// the disk when it returns.
func writeNew(path string, text []byte) error {
	explain := func(err error) error { return fmt.Errorf("write %s: %w (name a file elsewhere)", path, err) }
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".l2bridge-*") // mode 0600
	if err != nil {
		return explain(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return explain(err)
	}
	// Unlike a rename it never takes the place of another file. What knows no
	// links, as FAT on a stick, has this.
	err = os.Link(f.Name(), path)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return explain(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return explain(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return explain(err)
	}
	return nil
}

// readsBack reports, as an error, that a file does not open to secret.
func (a *app) readsBack(path, phrase string, secret []byte) error {
	text, err := readUpTo(path, sealed.MaxBytes)
	if err != nil {
		return err
	}
	got, err := a.engine.Open(phrase, text)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, secret) {
		return errors.New("it holds something else")
	}
	return nil
}

// readUpTo reads a file of at most most bytes.
func readUpTo(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes: no CA key is that long", path, most)
	}
	return data, nil
}
