// SPDX-License-Identifier: Apache-2.0

package test_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l2bridge/l2bridge/internal/config"
)

// These tests need no root: they read the tree, and hold the documents to it.

const module = "github.com/l2bridge/l2bridge"

// tree returns the text of each file of the repository under its path: what is
// checked in, or would be if it were.
func tree(t *testing.T, keep func(path string) bool) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(filepath.ToSlash(path), "../")
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == ".git" || name == "bin" || name == "dist"):
			return fs.SkipDir
		case entry.Type().IsRegular() && keep(name):
			text, err := os.ReadFile(path)
			files[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no such file in the tree")
	}
	return files
}

func isGo(path string) bool     { return strings.HasSuffix(path, ".go") }
func isTest(path string) bool   { return strings.HasSuffix(path, "_test.go") }
func isSource(path string) bool { return isGo(path) && !isTest(path) }
func isDoc(path string) bool    { return strings.HasSuffix(path, ".md") }

// read returns one file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t *testing.T, path, text string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Every drop reason of the code has its line in operations.md, and every line
// there its reason in the code.
func TestDropReasonsAreExplained(t *testing.T) {
	t.Parallel()
	named := make(map[string]bool)
	for path, text := range tree(t, isSource) {
		for _, reason := range dropReasons(parse(t, path, text)) {
			named[reason] = true
		}
	}
	// One of each place, lest the places have moved.
	for _, reason := range []string{"split_horizon", "mtu_peer", "tap_overflow", "queue_full", "socket_full"} {
		if !named[reason] {
			t.Errorf("reason %s was not found in the code: is this test still right about where they are?", reason)
		}
	}

	_, section, _ := strings.Cut(read(t, "docs/operations.md"), "\n## Drop reasons\n")
	section, _, _ = strings.Cut(section, "\n## ")
	explained := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		if explained[row[1]] {
			t.Errorf("docs/operations.md explains %s twice", row[1])
		}
		explained[row[1]] = true
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(explained))); diff != "" {
		t.Errorf("drop reasons (-code +docs/operations.md):\n%s", diff)
	}
}

// dropReasons returns the names of drop reasons in a file. They stand in tables
// called reasonNames, and in functions called Drops or addDrops: as what is given to
// a call, or as the key of a map.
func dropReasons(file *ast.File) (names []string) {
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if name, err := strconv.Unquote(lit.Value); err == nil && name != "" {
				names = append(names, name)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if n.Names[0].Name != "reasonNames" {
				return true
			}
			for _, e := range n.Values[0].(*ast.CompositeLit).Elts {
				add(e)
			}
		case *ast.FuncDecl:
			if n.Name.Name != "Drops" && n.Name.Name != "addDrops" || n.Body == nil {
				return true
			}
			ast.Inspect(n.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					for _, arg := range n.Args[:min(1, len(n.Args))] {
						add(arg)
					}
				case *ast.KeyValueExpr:
					add(n.Key)
				case *ast.IndexExpr:
					add(n.Index)
				}
				return true
			})
		}
		return true
	})
	return names
}

// The same for log lines: each has a line in operations.md.
func TestLogLinesAreExplained(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(read(t, "docs/operations.md"), "\n## Log lines\n")
	section, _, _ = strings.Cut(section, "\n## ")
	// log.Info("peer up", ...), or what logs by way of one: warn(m.cfg.Log, "peer refused", ...).
	call := regexp.MustCompile(`\.(Debug|Info|Warn|Error|warn)\((?:[\w.]+\.Log, )?"([^"]+)"`)
	found := make(map[string]bool)
	for path, text := range tree(t, isSource) {
		text = strings.ReplaceAll(text, `.tellWayLocked("`, `.Info("`) // what it is told it logs
		for _, m := range call.FindAllStringSubmatch(text, -1) {
			line := "| " + strings.ToUpper(m[1]) + " `" + m[2] + "` |"
			found[line] = true
			if !strings.Contains(section, line) {
				t.Errorf("%s logs %s %q: docs/operations.md has no row %q", path, m[1], m[2], line)
			}
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| [A-Z]+ `[^`]+` \\|").FindAllString(section, -1) {
		if !found[row] {
			t.Errorf("docs/operations.md has a row %q that nothing logs", row)
		}
	}
}

// And for events: each word has its place in the table of "l2bridge monitor".
func TestEventsAreExplained(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(read(t, "docs/operations.md"), "\n## Watch what happens\n")
	section, _, _ = strings.Cut(section, "\n## ")
	words := map[string]bool{"lost": true}
	for path, expr := range map[string]string{
		"transport/event.go":       `EventKind = "(\w+)"`,
		"fdb/change.go":            `return "(\w+)"`,
		"internal/daemon/guard.go": `What\b[^"\n]*"(\w+)"`,
	} {
		found := regexp.MustCompile(expr).FindAllStringSubmatch(read(t, path), -1)
		if found == nil {
			t.Errorf("%s has no word of an event", path)
		}
		for _, m := range found {
			words[m[1]] = true
		}
	}
	explained := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `[a-z]+`(?:, `[a-z]+`)* \\| ([^|]*) \\|").FindAllStringSubmatch(section, -1) {
		for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1) {
			explained[m[1]] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(words)), slices.Sorted(maps.Keys(explained))); diff != "" {
		t.Errorf("events (-code +docs/operations.md):\n%s", diff)
	}
}

// Every config key is in the reference file.
func TestReferenceNamesEveryKey(t *testing.T) {
	t.Parallel()
	reference := read(t, "internal/config/reference.toml")
	for _, s := range config.Settings() {
		if !strings.Contains(reference, "\n#"+s.Key+" = ") {
			t.Errorf("reference.toml has no line #%s = ...", s.Key)
		}
	}
}

// A test or fuzz target that a document names is there.
func TestDocumentsNameTestsThatAre(t *testing.T) {
	t.Parallel()
	defined := make(map[string]bool)
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)
	for _, text := range tree(t, isTest) {
		for _, m := range declaration.FindAllStringSubmatch(text, -1) {
			defined[m[1]] = true
		}
	}
	mention := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")
	mentioned := 0
	for path, text := range tree(t, isDoc) {
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			mentioned++
			if !defined[m[1]] {
				t.Errorf("%s names %s, which is no test", path, m[1])
			}
		}
	}
	if mentioned == 0 {
		t.Error("no document names a test: is the pattern still right?")
	}
}

// What a document links to in the repository is there, headings included.
func TestLinksLead(t *testing.T) {
	t.Parallel()
	docs := tree(t, isDoc)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for path, text := range docs {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			name := path
			if target != "" {
				name = filepath.ToSlash(filepath.Join(filepath.Dir(path), target))
			}
			if _, err := os.Stat(filepath.Join("..", name)); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
			} else if heading != "" && !slices.Contains(headings(docs[name]), heading) {
				t.Errorf("%s: link to %s: no such heading (there are %v)", path, m[1], headings(docs[name]))
			}
		}
	}
}

// headings returns the anchors of a document as a web page shows it.
func headings(text string) (anchors []string) {
	for line := range strings.Lines(text) {
		if title := strings.TrimLeft(line, "#"); title != line && strings.HasPrefix(title, " ") {
			title = strings.ToLower(strings.TrimSpace(title))
			title = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(title, "")
			anchors = append(anchors, strings.ReplaceAll(title, " ", "-"))
		}
	}
	return anchors
}

// Every .go file begins with the licence's line.
func TestLicenceLine(t *testing.T) {
	t.Parallel()
	const want = "// SPDX-License-Identifier: Apache-2.0\n"
	for path, text := range tree(t, isGo) {
		if !strings.HasPrefix(text, want) {
			t.Errorf("%s does not begin with %q", path, want)
		}
	}
	if !strings.Contains(read(t, "LICENSE"), "Apache License") {
		t.Error("LICENSE is not the Apache License")
	}
}

// Anybody may set a machine's clock, by years. So what lasts is counted by differences
// of time.Now, which the clock does not touch, and few places ask for the date.
func TestFewAskForTheDate(t *testing.T) {
	dates := map[string]bool{
		"cmd/l2bridge/monitor.go":         true, // for people
		"internal/event/bus.go":           true, // for people
		"transport/identity/cert.go":      true, // dates that are the same for all
		"transport/identity/token.go":     true, // by the founder's clock, see TestClockJumps
		"transport/mesh.go":               true, // where versions begin, see TestClockSetBack
		"transport/udpconn/read_linux.go": true, // the kernel's stamps, see TestClockIsSet
	}
	asks := regexp.MustCompile(`\.Unix(Milli|Micro|Nano)?\(\)|time\.(Unix|UnixMilli|Date|Parse)\(`)
	inPast := regexp.MustCompile(`Deadline\(time\.Unix\(1, 0\)\)`) // ends a wait at once
	for path, text := range tree(t, func(path string) bool { return isSource(path) && !strings.HasPrefix(path, "test/") }) {
		for i, line := range strings.Split(text, "\n") {
			if asks.MatchString(line) && !inPast.MatchString(line) && !dates[path] {
				t.Errorf("%s:%d asks for the date: %s", path, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// Every package says what it is.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	comment := make(map[string]string) // by directory
	name := make(map[string]string)
	for path, text := range tree(t, isSource) {
		file, dir := parse(t, path, text), filepath.Dir(path)
		name[dir] = file.Name.Name
		if file.Doc != nil {
			if comment[dir] != "" {
				t.Errorf("package %s has two comments", dir)
			}
			comment[dir] = file.Doc.Text()
		}
	}
	for dir, pkg := range name {
		want := "Package " + pkg + " "
		if pkg == "main" {
			want = "Command " + filepath.Base(dir) + " "
		}
		if !strings.HasPrefix(comment[dir], want) {
			t.Errorf("%s: its comment begins %.40q, want %q", dir, comment[dir], want)
		}
	}
}

// Imports run as docs/design.md draws them.
func TestImportPicture(t *testing.T) {
	t.Parallel()
	_, block, ok := strings.Cut(read(t, "docs/design.md"), "```imports\n")
	if !ok {
		t.Fatal("docs/design.md has no block of imports")
	}
	block, _, _ = strings.Cut(block, "```")
	drawn := make(map[string][]string)
	for line := range strings.Lines(block) {
		room, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		drawn[room] = strings.Fields(imports)
	}

	// Those of the Linux build, whatever this test runs on.
	list := exec.Command("go", "list", "-f", `{{if .GoFiles}}{{.ImportPath}}{{range .Imports}} {{.}}{{end}}{{end}}`, "./...")
	list.Dir, list.Env = "..", append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	stdlibOnly := []string{"bridge", "bridge/guard", "fdb", "internal/frame", "transport/wire", "transport/egress"}
	built := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		paths := strings.Fields(line)
		if len(paths) == 0 {
			continue
		}
		room := strings.TrimPrefix(paths[0], module+"/")
		if room == "test" || strings.HasPrefix(room, "test/") {
			continue
		}
		built[room] = []string{}
		for _, path := range paths[1:] {
			if own, ok := strings.CutPrefix(path, module+"/"); ok {
				built[room] = append(built[room], own)
			} else if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") && slices.Contains(stdlibOnly, room) {
				t.Errorf("%s imports %s, which is not of the standard library", room, path)
			}
		}
	}
	if diff := cmp.Diff(drawn, built); diff != "" {
		t.Errorf("imports (-docs/design.md +code):\n%s", diff)
	}
}

// No file knows where a developer keeps it.
func TestNoMachinePaths(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	home, _ := os.UserHomeDir()
	// A leading word character is of another path: "/proc/1/root/".
	personal := regexp.MustCompile(`(^|[^\w.%-])/(home/\w+|Users/\w+|root)/`)
	for path, text := range tree(t, func(string) bool { return true }) {
		for number, line := range strings.Split(text, "\n") {
			for _, place := range []string{root, home} {
				if len(place) > len("/root") && strings.Contains(line, place+"/") {
					t.Errorf("%s:%d names %s", path, number+1, place)
				}
			}
			if m := personal.FindString(line); m != "" {
				t.Errorf("%s:%d names %q", path, number+1, m)
			}
		}
	}
}
