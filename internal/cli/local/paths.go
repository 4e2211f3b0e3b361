package local

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"

	"github.com/novacron/novacron/internal/engine/pglocal"
)

// Paths are the places of one instance. All follow from the data folder.
type Paths struct {
	// Data survives restarts of the machine; Run does not; RAM is on tmpfs and holds
	// guests' memory.
	Data, Run, RAM string
}

// rootData is where root's instance lives.
const rootData = "/var/lib/novacron"

// DefaultData is the data folder when none is named.
func DefaultData(uid int, env func(string) string) string {
	if dir := env("NOVACRON_DATA_DIR"); dir != "" {
		return dir
	}
	return ownData(uid, env)
}

func ownData(uid int, env func(string) string) string {
	if uid == 0 {
		return rootData
	}
	if dir := env("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "novacron")
	}
	return filepath.Join(env("HOME"), ".local", "share", "novacron")
}

// PathsOf derives the places. The default data folder has the plain names; any
// other is told apart by a hash, short because a socket's path holds 107 bytes.
func PathsOf(data string, uid int, env func(string) string) Paths {
	suffix := ""
	if data != ownData(uid, env) {
		sum := sha256.Sum256([]byte(data))
		suffix = "-" + hex.EncodeToString(sum[:4])
	}
	user := ""
	if uid != 0 {
		user = "-" + strconv.Itoa(uid)
	}
	run := "/run/novacron"
	switch xdg := env("XDG_RUNTIME_DIR"); {
	case uid == 0:
	case filepath.IsAbs(xdg) && len(xdg) < 32:
		run = filepath.Join(xdg, "novacron")
	default:
		run = filepath.Join("/tmp", "novacron"+user)
	}
	return Paths{Data: data, Run: run + suffix, RAM: "/dev/shm/novacron" + user + suffix}
}

// Sockets lists where a local server's socket may be, the most likely first: the
// caller's own instance, then root's, then that of a server that is a service.
func Sockets(uid int, env func(string) string) []string {
	own := PathsOf(DefaultData(uid, env), uid, env).Socket()
	if env("NOVACRON_DATA_DIR") != "" {
		return []string{own} // who names an instance means no other, least of all when it is stopped
	}
	system := PathsOf(rootData, 0, env).Socket()
	if own == system {
		return []string{own, ServiceSocket}
	}
	return []string{own, system, ServiceSocket}
}

// ServiceSocket is that of a server that is a service of its own.
const ServiceSocket = "/run/novacron-server/api.sock"

// Socket is the administrator's UNIX socket. Its folder is the server's own.
func (p Paths) Socket() string { return filepath.Join(p.Run, "server", "api.sock") }

// Logs is the folder of the logs of all processes.
func (p Paths) Logs() string { return filepath.Join(p.Data, "logs") }

// Key is the server's key-encryption key.
func (p Paths) Key() string { return filepath.Join(p.server(), "kek") }

// DatabaseURL is the private database, as the role that owns it.
func (p Paths) DatabaseURL() string {
	return pglocal.Options{Dir: p.postgres(), SocketDir: p.pgSocket()}.OwnerURL()
}

func (p Paths) lock() string     { return filepath.Join(p.Data, "lock") }
func (p Paths) marker() string   { return filepath.Join(p.Data, "instance.json") }
func (p Paths) postgres() string { return filepath.Join(p.Data, "postgres") }
func (p Paths) server() string   { return filepath.Join(p.Data, "server") }
func (p Paths) nodes() string    { return filepath.Join(p.Data, "nodes") }
func (p Paths) simDir() string   { return filepath.Join(p.nodes(), "sim") }

func (p Paths) node(i int) string { return filepath.Join(p.nodes(), nodeName(i)) }

func (p Paths) log(name string) string { return filepath.Join(p.Logs(), name+".log") }

func (p Paths) pgSocket() string { return filepath.Join(p.Run, "pg") }
func (p Paths) guests() string   { return filepath.Join(p.Run, "guests") }
func (p Paths) state() string    { return filepath.Join(p.Run, "state.json") }

func (p Paths) joinFile(child string) string { return filepath.Join(p.Run, "join-"+child) }

// nodeName is also the name the node joins under.
func nodeName(i int) string { return "node-" + strconv.Itoa(i) }

// exists tells whether something is there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
