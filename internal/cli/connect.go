package cli

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// connect decides which server a command talks to: flags, else the
// environment, else the current context, else the instance of this machine.
func (a *app) connect(cmd *cobra.Command) (*client.Client, error) {
	cfg, err := a.config(cmd)
	if err != nil {
		return nil, err
	}
	return a.dial(cfg)
}

func (a *app) dial(cfg client.Config) (*client.Client, error) {
	cfg.UserAgent = "novacron/" + a.version
	cfg.RetryFor = a.retryFor
	return client.New(cfg)
}

// retryFor is as long as a server takes to come back, and no longer than a person
// likes to look at nothing.
const retryFor = 5 * time.Second

func (a *app) config(cmd *cobra.Command) (client.Config, error) {
	f := a.flags
	if err := oneServer(cmd, f); err != nil {
		return client.Config{}, err
	}
	switch {
	case f.socket != "":
		return client.Config{Socket: f.socket}, nil
	case f.address != "":
		return a.fromEnv(f.address), nil
	case f.context != "":
		return a.fromContext(f.context)
	case a.env("NOVACRON_SOCKET") != "":
		return client.Config{Socket: a.env("NOVACRON_SOCKET")}, nil
	case a.env("NOVACRON_ADDRESS") != "":
		return a.fromEnv(a.env("NOVACRON_ADDRESS")), nil
	}
	all, err := a.loadContexts()
	if err != nil {
		return client.Config{}, err
	}
	if all.Current != "" {
		return a.fromContext(all.Current)
	}
	return a.fromMachine()
}

// oneServer refuses flags that name several.
func oneServer(cmd *cobra.Command, f globals) error {
	var named []string
	for flag, value := range map[string]string{"--socket": f.socket, "--address": f.address, "--context": f.context} {
		if value != "" {
			named = append(named, flag)
		}
	}
	if len(named) > 1 {
		return usage(cmd, "--socket, --address and --context each name a server: give one of them")
	}
	return nil
}

// fromEnv takes trust and token from the environment, where no list of processes
// shows them.
func (a *app) fromEnv(address string) client.Config {
	return client.Config{
		Addresses:   strings.Split(address, ","),
		Fingerprint: a.env("NOVACRON_FINGERPRINT"),
		Token:       a.env("NOVACRON_TOKEN"),
	}
}

func (a *app) fromContext(name string) (client.Config, error) {
	all, err := a.loadContexts()
	if err != nil {
		return client.Config{}, err
	}
	c, ok := all.find(name)
	if !ok {
		return client.Config{}, errs.New(errs.NotFound, "there is no context %q: see 'novacron context list'", errs.Clip(name))
	}
	return c.config(), nil
}

// fromMachine finds the instance that "novacron up" runs here.
func (a *app) fromMachine() (client.Config, error) {
	var closed string
	for _, socket := range local.Sockets(os.Getuid(), a.instanceEnv) {
		info, err := os.Stat(socket)
		switch {
		case err == nil && info.Mode()&fs.ModeSocket != 0:
			return client.Config{Socket: socket}, nil
		case errors.Is(err, fs.ErrPermission):
			closed = socket
		}
	}
	if closed != "" {
		return client.Config{}, errs.New(errs.Forbidden,
			"the instance on this machine belongs to another user: use sudo, or 'novacron context add' with a token")
	}
	return client.Config{}, errs.New(errs.NodeUnreachable, "no server is named and none runs on this machine: start one with "+
		"'novacron up --detach', or name one with --address, NOVACRON_ADDRESS or 'novacron context add'")
}
