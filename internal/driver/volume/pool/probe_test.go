package pool

import "testing"

func TestKeepsLocks(t *testing.T) {
	const mounts = `21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 21 0:40 / /mnt/good rw,relatime shared:1 - nfs4 filer:/a rw,vers=4.2,local_lock=none
41 21 0:41 / /mnt/bad rw,relatime shared:2 - nfs filer:/b rw,vers=3,nolock,local_lock=all
42 21 0:42 / /mnt/with\040blank rw - nfs filer:/c rw,local_lock=flock
43 41 8:2 / /mnt/bad/local rw - ext4 /dev/sdb1 rw
`
	for path, want := range map[string]string{
		"/srv": "", "/mnt/good": "", "/mnt/good/pool": "", "/mnt/bad": "nolock", "/mnt/bad/pool": "nolock",
		"/mnt/badger": "", "/mnt/with blank/x": "local_lock=flock", "/mnt/bad/local/x": "",
	} {
		if got := keepsLocks(mounts, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
