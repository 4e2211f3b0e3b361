package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/engine/lan"
	"github.com/novacron/novacron/internal/engine/pki"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// nearServer is a server that was heard of.
type nearServer struct {
	Addresses   []string `json:"addresses"`
	Fingerprint string   `json:"fingerprint"`
	Server      string   `json:"server"`
	Version     string   `json:"version"`
}

const discoverLong = `Ask the local network which NovaCron servers there are. Servers announce
themselves by multicast DNS wherever other machines reach them; one that listens
on this machine alone does not.

Anybody on the network can announce anything: compare the fingerprint with the
one that the server's own machine shows ('novacron status') before you trust it.`

func newDiscover(a *app) *cobra.Command {
	wait := 2 * time.Second
	cmd := leaf("discover", "Find servers on the local network", names(), func(cmd *cobra.Command, _ []string) error {
		if wait <= 0 || wait > time.Minute {
			return errs.New(errs.OutOfRange, "--wait takes more than 0 and at most 1m")
		}
		return a.discover(cmd.Context(), wait)
	})
	cmd.Long = discoverLong
	cmd.Example = "  novacron discover"
	cmd.Flags().DurationVar(&wait, "wait", wait, "how `long` to wait for answers")
	return cmd
}

func (a *app) discover(ctx context.Context, wait time.Duration) error {
	found := []nearServer{}
	for _, s := range lan.Find(ctx, wait) {
		found = append(found, nearServer{Addresses: s.Addresses, Fingerprint: pki.FormatFingerprint(s.Fingerprint), Server: s.Server, Version: s.Version})
	}
	err := output.List(a.printer(), found, []output.Column[nearServer]{
		{Title: "address", Cell: func(s nearServer) string { return strings.Join(s.Addresses, ", ") }},
		{Title: "version", Cell: func(s nearServer) string { return s.Version }},
		{Title: "server", Wide: true, Cell: func(s nearServer) string { return s.Server }},
		{Title: "fingerprint", Cell: func(s nearServer) string { return s.Fingerprint }},
	})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(a.err, "no server announces itself on this network; one that listens on 127.0.0.1 alone never does (novacron up --listen)")
		return nil
	}
	fmt.Fprintf(a.err, "next: novacron context add NAME --address %s --fingerprint FINGERPRINT, once you have compared it\n", found[0].Addresses[0])
	return nil
}
