package client

import (
	"os"
	"strings"
)

// FromEnv makes a client of the cluster that the environment names, with the same
// words as the command line: NOVACRON_SOCKET, the UNIX socket of a server on this
// machine, or NOVACRON_ADDRESS, host:port of one or several servers parted by
// commas, with NOVACRON_FINGERPRINT and NOVACRON_TOKEN. The error of an environment
// that names none has CodeInvalidConfig.
func FromEnv() (*Client, error) {
	cfg := Config{Socket: os.Getenv("NOVACRON_SOCKET")}
	if cfg.Socket == "" {
		address := os.Getenv("NOVACRON_ADDRESS")
		if address == "" {
			return nil, fail(CodeInvalidConfig, "no cluster is named: set NOVACRON_SOCKET, or NOVACRON_ADDRESS with NOVACRON_FINGERPRINT and NOVACRON_TOKEN", nil)
		}
		cfg.Addresses = strings.Split(address, ",")
		cfg.Fingerprint, cfg.Token = os.Getenv("NOVACRON_FINGERPRINT"), os.Getenv("NOVACRON_TOKEN")
	}
	return New(cfg)
}
