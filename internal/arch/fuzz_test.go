package arch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What Go's fuzzer prints when its time is over and it calls that a failure
// (go.dev/issue/75804). It cannot be brought about at will: a package's own main
// prints it.
const timeIsOver = `package spurious
import ("fmt"; "os"; "testing")
func TestMain(m *testing.M) {
	for _, a := range os.Args { if a == "-test.fuzzworker" { os.Exit(m.Run()) } }
	for _, a := range os.Args { if len(a) > 11 && a[:11] == "-test.list=" { os.Exit(m.Run()) } }
	f, err := os.OpenFile("runs", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil { panic(err) }
	f.Write([]byte("x"))
	runs, err := os.ReadFile("runs")
	if err != nil { panic(err) }
	if len(runs) > TIMES { os.Exit(m.Run()) }
	fmt.Print("fuzz: elapsed: 0s, gathering baseline coverage: 0/1 completed\n--- FAIL: FuzzIt (1.02s)\n    context deadline exceeded\nEXTRAFAIL\n")
	os.Exit(1)
}
func FuzzIt(f *testing.F) { f.Fuzz(func(t *testing.T, s string) {}) }
`

// The script of make fuzz tells findings from the end of the fuzzer's time, with
// the real fuzzer.
func TestFuzzScript(t *testing.T) {
	spurious := func(times, extra string) string {
		return strings.NewReplacer("TIMES", times, "EXTRA", extra).Replace(timeIsOver)
	}
	for name, c := range map[string]struct {
		source string
		passes bool
		says   string
	}{
		"nothing is found": {"package a\nimport \"testing\"\nfunc FuzzIt(f *testing.F) { f.Fuzz(func(t *testing.T, s string) {}) }\n", true, "1 fuzz targets found nothing"},
		"a finding": {
			"package a\nimport \"testing\"\nfunc FuzzIt(f *testing.F) { f.Add(\"b\"); f.Fuzz(func(t *testing.T, s string) { if len(s) > 2 { t.Fatal(\"context deadline exceeded\") } }) }\n",
			false, "Failing input written to",
		},
		"a seed that fails": {
			"package a\nimport \"testing\"\nfunc FuzzIt(f *testing.F) { f.Add(\"b\"); f.Fuzz(func(t *testing.T, s string) { t.Fatal(\"context deadline exceeded\") }) }\n",
			false, "failed: ./a FuzzIt",
		},
		"the time is over once":      {spurious("1", ""), true, "once more"},
		"the time is over twice":     {spurious("2", ""), false, "failed: ./a FuzzIt"},
		"a word more is a finding":   {spurious("1", "    Failing input written to testdata/fuzz/FuzzIt/x\\n"), false, "failed: ./a FuzzIt"},
		"what does not build fails":  {"package a\nimport \"testing\"\nfunc FuzzIt(f *testing.F) { nothing }\n", false, "undefined: nothing"},
		"no targets are no success":  {"package a\n", false, "0 fuzz targets"},
		"a panic is never the clock": {"package a\nimport \"testing\"\nfunc FuzzIt(f *testing.F) { panic(\"context deadline exceeded\") }\n", false, "failed: ./a FuzzIt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module fuzzed\n\ngo 1.24\n")
			write(t, filepath.Join(dir, "a", "a_test.go"), c.source)
			cmd := exec.CommandContext(t.Context(), "../../scripts/fuzz", dir)
			cmd.Env = append(os.Environ(), "FUZZTIME=200x", "GOFLAGS=", "GOWORK=off")
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.passes || !strings.Contains(string(out), c.says) {
				t.Errorf("%v, expected to pass: %v, to say %q:\n%s", err, c.passes, c.says, out)
			}
			if twice := strings.Contains(string(out), "once more"); twice != strings.HasPrefix(name, "the time is over") {
				t.Errorf("run again: %v\n%s", twice, out)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
