package cli

import (
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/server"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/near"
)

// explained is an error code with all there is to say of it.
type explained struct {
	Code      string `json:"code"`
	Status    int    `json:"http_status"`
	Exit      int    `json:"exit_code"`
	Retryable bool   `json:"retryable"`
	Meaning   string `json:"meaning"`
	Remedy    string `json:"remedy"`
}

func explain(c errs.Code) explained {
	m := c.Meaning()
	return explained{string(c), server.StatusOf(c), classOf(c), c.Retryable(), m.What, m.Do}
}

func classOf(c errs.Code) int {
	if class, known := classes[string(c)]; known {
		return class
	}
	return exitInternal
}

func allCodes() []string {
	all := make([]string, 0, len(errs.Codes()))
	for _, c := range errs.Codes() {
		all = append(all, string(c))
	}
	return all
}

func newExplain(a *app) *cobra.Command {
	cmd := leaf("explain CODE", "Say what an error code means and what to do", names("CODE"), func(_ *cobra.Command, args []string) error {
		code := errs.Code(args[0])
		if code.Meaning() == (errs.Meaning{}) {
			return errs.New(errs.NotFound, "there is no error code %q%s", errs.Clip(args[0]), near.Hint(args[0], slices.Values(allCodes())))
		}
		e := explain(code)
		return a.printer().Describe(e, []output.Pair{
			{Key: "code", Value: e.Code},
			{Key: "meaning", Value: e.Meaning},
			{Key: "what to do", Value: e.Remedy},
			{Key: "http status", Value: strconv.Itoa(e.Status)},
			{Key: "exit code", Value: strconv.Itoa(e.Exit)},
			{Key: "try again", Value: yes(e.Retryable)},
		})
	})
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return allCodes(), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// newMan writes manual pages, for packages.
func newMan(a *app) *cobra.Command {
	cmd := leaf("man FOLDER", "Write the manual pages into a folder", names("FOLDER"), func(cmd *cobra.Command, args []string) error {
		err := os.MkdirAll(args[0], 0o755) //nolint:gosec // manual pages are for all to read
		if err == nil {
			cmd.Root().DisableAutoGenTag = true
			now := a.clock.Now()
			err = doc.GenManTree(cmd.Root(), &doc.GenManHeader{Section: "1", Source: "NovaCron " + a.version, Manual: "NovaCron", Date: &now}, args[0])
		}
		if err != nil {
			return errs.New(errs.HostFailure, "the manual pages cannot be written to %s", args[0]).Because(err)
		}
		return nil
	})
	cmd.Example = `  novacron man ~/.local/share/man/man1 && man novacron-vm-create`
	return cmd
}
