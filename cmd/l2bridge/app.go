// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/l2bridge/l2bridge/internal/config"
	"github.com/l2bridge/l2bridge/internal/control"
	"github.com/l2bridge/l2bridge/internal/daemon"
)

// app is one run of the program.
type app struct {
	engine         engine
	stdout, stderr io.Writer

	paths config.Paths // as the flags of every command gave them
	json  bool
}

// The exit codes.
const (
	exitDone          = 0
	exitError         = 1
	exitUsage         = 2
	exitNotRunning    = 3
	exitNotAuthorised = 4
	exitDegraded      = 5
)

// errDegraded makes status --check exit with exitDegraded; the answer has
// said the rest.
var errDegraded = errors.New("not up")

// usageError is an error of the command line: exitUsage.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	help := &checkedWriter{w: a.stdout}
	root.SetOut(help)
	root.SetErr(a.stderr)
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for os.Args
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = help.err
	}
	return a.exit(cmd, err)
}

// exit says what went wrong and returns the exit code.
func (a *app) exit(cmd *cobra.Command, err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDegraded):
		return exitDegraded
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintln(a.stderr, "l2bridge:", cleanLine(err.Error()))
	switch {
	case isUsage(err):
		fmt.Fprintln(a.stderr, "see", cmd.CommandPath(), "--help")
		return exitUsage
	case errors.Is(err, control.ErrNotRunning):
		return exitNotRunning
	case errors.Is(err, control.ErrNotAuthorised), errors.Is(err, daemon.ErrNotMember), errors.Is(err, daemon.ErrRefused),
		errors.Is(err, daemon.ErrNotFounder), errors.Is(err, daemon.ErrFiled):
		return exitNotAuthorised
	}
	return exitError
}

// isUsage reports whether the command line was wrong, a flag's value included.
func isUsage(err error) bool {
	var usage usageError
	var setting *config.Error
	return errors.As(err, &usage) || errors.As(err, &setting) && setting.Place.Flag != ""
}

func (a *app) rootCommand() *cobra.Command {
	cobra.EnableCommandSorting = false // by what one does first
	root := &cobra.Command{
		Use:   "l2bridge",
		Short: "Put two or more sites on one Ethernet segment",
		Example: `  l2bridge init --site home && l2bridge up     found a network at home, and run it
  l2bridge invite office                       print a token for the office
  l2bridge join l2b1_...                       at the office: enrol and run`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	group(root)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{flagError(err)} })

	root.SetUsageTemplate(usageTemplate)

	flags := root.PersistentFlags()
	flags.StringVarP(&a.paths.Name, "name", "n", "", "pick network `NAME` of those on this host (default \"default\")")
	flags.StringVar(&a.paths.File, "config", "", "read config from `FILE` (default /etc/l2bridge/NAME.toml)")
	flags.StringVar(&a.paths.StateDir, "state-dir", "", "keep keys and membership in `DIR` (default /var/lib/l2bridge/NAME)")
	flags.StringVar(&a.paths.Socket, "socket", "", "talk to the daemon at `PATH` (default /run/l2bridge/NAME.sock)")
	flags.BoolVarP(&a.json, "json", "j", false, "answer in JSON")

	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, flag := range []string{"name", "config", "state-dir", "socket"} {
			// A script's variable that is not set must not stand for the default network.
			if f := cmd.Flags().Lookup(flag); f != nil && f.Changed && f.Value.String() == "" {
				return usagef("--%s is empty: want a word, or leave it out", flag)
			}
		}
		return nil
	}

	root.AddCommand(
		a.initCommand(), a.upCommand(), a.inviteCommand(), a.joinCommand(),
		a.pendingCommand(), a.approveCommand(), a.denyCommand(), a.revokeCommand(), a.leaveCommand(), a.rekeyCommand(), a.caCommand(),
		a.statusCommand(), a.peersCommand(), a.fdbCommand(), a.dropsCommand(), a.testCommand(), a.monitorCommand(),
		a.configCommand(), a.versionCommand(), a.completionCommand(),
	)
	for _, hidden := range hiddenCommands {
		root.AddCommand(hidden())
	}
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Example = "  l2bridge help up\n  l2bridge help fdb add"
		help.Args = func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = cmd.ValidateArgs(rest)
			}
			return err
		}
	}
	return root
}

// flagName is what a flag that was meant may look like.
var flagName = regexp.MustCompile(`^unknown flag: --[a-z][a-z-]{0,30}$`)

// flagError leaves out what no flag is called: it may be a piece of a token, which
// begins with a dash one time in sixty-four.
func flagError(err error) error {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "unknown shorthand flag: "):
		text, _, _ = strings.Cut(text, " in -")
		return errors.New(text)
	case strings.HasPrefix(text, "unknown flag: ") && !flagName.MatchString(text):
		return errors.New("unknown flag")
	}
	return err
}

// usageTemplate is cobra's without what l2bridge has no use for.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}

Examples:
{{.Example}}
{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`

// hiddenCommands are for the build alone.
var hiddenCommands []func() *cobra.Command

// group makes cmd one that only holds others.
func group(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			var names []string
			for _, c := range cmd.Commands() {
				if c.IsAvailableCommand() && c.Name() != "help" {
					names = append(names, c.Name())
				}
			}
			return usagef("want a command: %s", strings.Join(names, ", "))
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %.64q (did you mean %s?)", args[0], strings.Join(near, " or "))
		}
		return usagef("unknown command %.64q", args[0])
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil } // Args never lets it run
	cmd.SuggestionsMinimumDistance = 2
}

// between accepts from least to most arguments, which want describes.
func between(least, most int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("too few arguments: want %s", want)
		case len(args) > most:
			return usagef("unexpected argument %.64q: want %s", args[most], want)
		}
		return nil
	}
}

// noArgs accepts none.
var noArgs = between(0, 0, "none")

// client returns the way to the running daemon.
func (a *app) client() (*control.Client, error) {
	p, err := config.Locate(a.paths)
	if err != nil {
		return nil, err
	}
	return control.Dial(p.Socket), nil
}

// answer prints v as one line of JSON, or lets text print it for people. An
// answer that nobody gets is an error: the disk that it goes to may be full.
func (a *app) answer(v any, text func(w io.Writer)) error {
	if !a.json {
		var b bytes.Buffer
		text(&b)
		_, err := a.stdout.Write(b.Bytes())
		return err
	}
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// checkedWriter remembers the first error of a write, for who prints help, which
// does not look.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// logger returns the log of a long-running command. Where nobody reads it any more, as
// when Ctrl-C has ended "2>&1 | tee log" first, the command goes on, and takes away
// what it has made when it ends.
func (a *app) logger() *slog.Logger {
	outliveReader()
	w := newLogWriter(a.stderr)
	options := &slog.HandlerOptions{}
	if isJournal(a.stderr) { // which has its own times
		options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
			if len(groups) == 0 && attr.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attr
		}
	}
	return slog.New(&logHandler{slog.NewTextHandler(w, options), w})
}

// isJournal reports whether what is written to w goes to systemd's journal, as
// systemd.exec(5) has it told. The variable alone does not say so: a shell that a
// service runs may have the log go elsewhere.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// logHandler writes that the site runs as a line of its own form, "ready site=home
// tap=l2b0 ...", for scripts to wait for. All else is a log as slog has it.
type logHandler struct {
	slog.Handler
	w io.Writer
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message != "ready" || r.Level != slog.LevelInfo {
		return h.Handler.Handle(ctx, r)
	}
	line := bytes.NewBufferString("ready ")
	attrs := slog.NewTextHandler(line, &slog.HandlerOptions{ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey || attr.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return attr
	}})
	if err := attrs.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.w.Write(line.Bytes())
	return err
}
