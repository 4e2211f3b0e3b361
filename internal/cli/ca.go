package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newCA(a *app) *cobra.Command {
	return group(a, "ca", "The cluster's certificate authority", newCAExport(a), newCATrust(a))
}

func newCAExport(a *app) *cobra.Command {
	var file string
	cmd := leaf("export", "Print the cluster's root certificate", names(), func(cmd *cobra.Command, _ []string) error {
		ca, err := a.authority(cmd)
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() && file == "" {
			return p.Document(ca)
		}
		if file == "" {
			fmt.Fprint(a.out, ca.CertificatePEM)
			return nil
		}
		if err := os.WriteFile(file, []byte(ca.CertificatePEM), 0o644); err != nil { //nolint:gosec // a certificate is public
			return errs.New(errs.HostFailure, "the certificate cannot be written to %s", file).Because(err)
		}
		fmt.Fprintf(a.err, "%s holds the certificate with the fingerprint %s\n", file, ca.Fingerprint)
		return nil
	})
	cmd.Long = `Print the cluster's root certificate, for programs that take a CA file: curl,
Prometheus, Terraform. It is public; the fingerprint tells whether it is the one.`
	cmd.Example = `  novacron ca export --file novacron-ca.pem
  curl --cacert novacron-ca.pem https://cloud.example:8443/healthz`
	cmd.Flags().StringVar(&file, "file", "", "write it to this `file`")
	return cmd
}

func newCATrust(a *app) *cobra.Command {
	var remove bool
	cmd := leaf("trust", "Make this machine trust the cluster's certificates", names(), func(cmd *cobra.Command, _ []string) error {
		ca, err := a.authority(cmd)
		if err != nil {
			return err
		}
		store, err := findTrustStore(trustStores)
		if err != nil {
			return err
		}
		name := "novacron-" + strings.ToLower(strings.ReplaceAll(ca.Fingerprint, ":", "")[:16]) + ".crt"
		if remove {
			if err := store.remove(cmd.Context(), name); err != nil {
				return err
			}
			fmt.Fprintln(a.out, "this machine no longer trusts the cluster's certificates")
			return nil
		}
		if err := store.add(cmd.Context(), name, ca.CertificatePEM); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "this machine trusts certificates of the cluster with the fingerprint\n  %s\n", ca.Fingerprint)
		fmt.Fprintln(a.out, "Browsers with a store of their own (Firefox) take the file of 'novacron ca export'.")
		return nil
	})
	cmd.Long = `Put the cluster's root certificate into this machine's trust store, so that
browsers and programs accept its servers. It needs root.

Whoever holds the cluster's signing key can then make certificates that this
machine accepts for any name: trust your own cluster, not somebody else's.`
	cmd.Flags().BoolVar(&remove, "remove", false, "take it out again")
	return cmd
}

// authority asks the server that the command is to talk to, which that
// connection has proved to be the right one.
func (a *app) authority(cmd *cobra.Command) (api.CA, error) {
	c, err := a.connect(cmd)
	if err != nil {
		return api.CA{}, err
	}
	return c.CA(cmd.Context())
}

// trustStore is where a distribution keeps certificates that its machine trusts
// besides its own.
type trustStore struct {
	dir    string
	update []string
}

var trustStores = []trustStore{
	{"/usr/local/share/ca-certificates", []string{"update-ca-certificates"}},           // Debian, Ubuntu
	{"/etc/pki/ca-trust/source/anchors", []string{"update-ca-trust", "extract"}},       // Fedora, RHEL
	{"/etc/pki/trust/anchors", []string{"update-ca-certificates"}},                     // SUSE
	{"/etc/ca-certificates/trust-source/anchors", []string{"trust", "extract-compat"}}, // Arch
}

func findTrustStore(all []trustStore) (trustStore, error) {
	for _, s := range all {
		if _, err := exec.LookPath(s.update[0]); err != nil {
			continue
		}
		if info, err := os.Stat(s.dir); err == nil && info.IsDir() {
			return s, nil
		}
	}
	return trustStore{}, errs.New(errs.HostFailure,
		"this machine's trust store was not found: install ca-certificates, or give programs the file of 'novacron ca export'")
}

func (s trustStore) add(ctx context.Context, name, pem string) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(pem), 0o644); err != nil { //nolint:gosec // a certificate is public
		return s.refused(err)
	}
	if err := s.refresh(ctx); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (s trustStore) remove(ctx context.Context, name string) error {
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.refused(err)
	}
	return s.refresh(ctx)
}

func (s trustStore) refused(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return errs.New(errs.Forbidden, "the trust store of this machine belongs to root: run this with sudo").Because(err)
	}
	return errs.New(errs.HostFailure, "the trust store of this machine cannot be changed").Because(err)
}

func (s trustStore) refresh(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, s.update[0], s.update[1:]...).CombinedOutput() //nolint:gosec // a line of the program's own table, without any input
	if err != nil {
		return errs.New(errs.HostFailure, "%s failed", strings.Join(s.update, " ")).
			Because(fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out))))
	}
	return nil
}
