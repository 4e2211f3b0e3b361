package seed

// Entries of Rock Ridge in the system use area of a folder's records, each of an
// even length: two letters, length, version, content.

// sharing (SP) says in the root's own entry that there are such entries at all.
var sharing = []byte{'S', 'P', 7, 1, 0xbe, 0xef, 0}

// times (TF) is the time of the last change: 1 January 1970.
var times = []byte{'T', 'F', 12, 1, 0x02, 70, 1, 1, 0, 0, 0, 0}

// attributes (PX) are mode and links; everything belongs to root.
func attributes(mode, links uint32) []byte {
	b := make([]byte, 36)
	copy(b, []byte{'P', 'X', 36, 1})
	both32(b[4:], mode)
	both32(b[12:], links)
	return b
}

// alternateName (NM) is a file's real name.
func alternateName(name string) []byte {
	return append([]byte{'N', 'M', byte(5 + len(name)), 1, 0}, name...)
}

// continuation (CE) leads to what does not fit into the root's own entry.
func continuation() []byte {
	b := make([]byte, 28)
	copy(b, []byte{'C', 'E', 28, 1})
	both32(b[4:], atReference)
	both32(b[20:], uint32(len(extensionReference())))
	return b
}

// extensionReference (ER) names the extension that the entries are of.
func extensionReference() []byte {
	const (
		name = "RRIP_1991A"
		what = "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
		from = "PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION."
	)
	b := []byte{'E', 'R', byte(8 + len(name) + len(what) + len(from)), 1, byte(len(name)), byte(len(what)), byte(len(from)), 1}
	return append(b, name+what+from...)
}
