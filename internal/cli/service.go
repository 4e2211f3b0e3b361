package cli

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/novacron/novacron/internal/cli/local"
)

// service is a unit of systemd.
type service struct {
	// face is the command it runs.
	face, name, about string
	args              string
	lines             []string
}

// serviceEnv tells a process that systemd runs it as an installed service.
const serviceEnv = "NOVACRON_SERVICE"

// services by the command they run. KillMode=process leaves what outlives the
// service: guests with their keepers.
var services = map[string]service{
	"up": {
		face: "up", name: "novacron.service", about: "NovaCron: everything on this machine", args: "up",
		lines: []string{"KillMode=process", "TimeoutStartSec=5min", "TimeoutStopSec=3min", "LimitNOFILE=1048576", "OOMScoreAdjust=-500"},
	},
	"agent": {
		face: "agent", name: "novacron-agent.service", about: "NovaCron agent: the virtual machines of this host",
		args:  "agent --join-file " + joinPath,
		lines: []string{"KillMode=process", "TimeoutStartSec=5min", "TimeoutStopSec=3min", "LimitNOFILE=1048576", "OOMScoreAdjust=-500", "StateDirectory=novacron", "RuntimeDirectory=novacron", "RuntimeDirectoryMode=0755", "RuntimeDirectoryPreserve=yes"},
	},
	"server": {
		face: "server", name: "novacron-server.service", about: "NovaCron server: API, workflows, reconcilers",
		args: "server --socket-path " + local.ServiceSocket,
		lines: []string{
			"User=novacron", "Group=novacron", "StateDirectory=novacron/server", "StateDirectoryMode=0700", "RuntimeDirectory=novacron-server", "RuntimeDirectoryMode=0700",
			"TimeoutStartSec=5min", "TimeoutStopSec=30s", "LimitNOFILE=1048576",
			"NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectKernelTunables=yes",
			"ProtectControlGroups=yes", "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "CapabilityBoundingSet=",
		},
	},
}

// text is the unit's file.
func (u service) text() string {
	var b strings.Builder
	b.WriteString("# Written by 'novacron install', which replaces it; change it with 'systemctl edit'.\n")
	b.WriteString("[Unit]\nDescription=" + u.about + "\nDocumentation=https://github.com/novacron/novacron\n")
	b.WriteString("Wants=network-online.target\nAfter=network-online.target postgresql.service\n")
	b.WriteString("\n[Service]\nType=notify\nNotifyAccess=main\nEnvironment=" + serviceEnv + "=1\nExecStart=" + binPath + " " + u.args + "\nRestart=on-failure\nRestartSec=1s\n")
	for _, l := range u.lines {
		b.WriteString(l + "\n")
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// isService tells whether systemd runs this process as an installed service.
func (a *app) isService() bool { return a.env(serviceEnv) != "" }

// serviceReady tells systemd that the start is over; without systemd, nobody.
func serviceReady() { _, _ = daemon.SdNotify(true, daemon.SdNotifyReady) }

// spares tells whether a signal leaves guests running: a service that is stopped
// or restarted does. When the machine itself shuts down, they are shut down.
func (a *app) spares(s os.Signal) bool {
	return a.isService() && s == syscall.SIGTERM && !machineStops()
}

// askTakes bounds the question to systemd, which may be busy stopping things.
const askTakes = 5 * time.Second

// machineStops asks systemd whether the machine is shutting down.
func machineStops() bool {
	ctx, cancel := context.WithTimeout(context.Background(), askTakes)
	defer cancel()
	// it ends with an error for every state but "running"
	out, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output()
	return strings.TrimSpace(string(out)) == "stopping"
}
