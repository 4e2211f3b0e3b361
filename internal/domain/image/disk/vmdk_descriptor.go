package disk

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// maxDescriptor is far more than any has: it is a page of text.
const maxDescriptor = 64 * unit.KiB

// vmdkDescriptorOf reads the text within a sparse extent, and refuses one that
// speaks of any other file.
func vmdkDescriptorOf(f file, head []byte) error {
	le := binary.LittleEndian
	at, sectors := le.Uint64(head[vmdkDescriptor:]), le.Uint64(head[vmdkDescriptorN:])
	if at == 0 || sectors == 0 {
		return refuse("the VMDK has no descriptor: it is a part of a disk in several files")
	}
	if sectors > uint64(maxDescriptor/sector) {
		return refuse("the VMDK's descriptor has %d sectors: %d are taken", sectors, maxDescriptor/sector)
	}
	from, err := f.sectors(at, int64(sectors)*sector, "VMDK descriptor")
	if err != nil {
		return err
	}
	text, err := f.part(from, int64(sectors)*sector, "VMDK descriptor")
	if err != nil {
		return err
	}
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	d, err := readDescriptor(string(text))
	if err != nil {
		return err
	}
	return d.check(le.Uint64(head[vmdkCapacity:]))
}

// descriptor is what the text says.
type descriptor struct {
	values  map[string]string
	extents []string
}

func readDescriptor(text string) (descriptor, error) {
	d := descriptor{values: map[string]string{}}
	lines := strings.Split(text, "\n")
	if strings.TrimSpace(lines[0]) != "# Disk DescriptorFile" {
		return d, refuse("the VMDK's descriptor is damaged")
	}
	for _, line := range lines[1:] {
		line = strings.TrimSpace(line)
		word, _, _ := strings.Cut(line, " ")
		switch {
		case line == "", line[0] == '#':
		case word == "RW", word == "RDONLY", word == "NOACCESS":
			d.extents = append(d.extents, line)
		default:
			key, value, ok := strings.Cut(line, "=")
			key = strings.ToLower(strings.TrimSpace(key))
			if _, twice := d.values[key]; !ok || twice {
				return d, refuse("the VMDK's descriptor has a line that is none, or twice the same: %q", errs.Clip(line))
			}
			d.values[key] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return d, nil
}

func (d descriptor) check(capacity uint64) error {
	parent, hint := strings.ToLower(d.values["parentcid"]), d.values["parentfilenamehint"]
	kind := strings.ToLower(d.values["createtype"])
	err := none(
		claim{hint != "" || parent != "" && parent != "ffffffff", refuse("the VMDK builds on another disk: export its machine again, as a whole")},
		claim{kind != "monolithicsparse" && kind != "streamoptimized", refuse("the VMDK is of type %q: monolithicSparse and streamOptimized are taken", errs.Clip(d.values["createtype"]))},
		claim{len(d.extents) != 1, refuse("the VMDK has %d extents, which are files of their own: one, in the file itself, is taken", len(d.extents))},
	)
	if err != nil {
		return err
	}
	return extent(d.extents[0], capacity)
}

// extent checks a line such as: RW 2048 SPARSE "disk.vmdk".
func extent(line string, capacity uint64) error {
	words := strings.SplitN(line, " ", 4)
	if len(words) != 4 {
		return refuse("the VMDK's extent is damaged: %q", errs.Clip(line))
	}
	name := strings.Trim(strings.TrimSpace(words[3]), `"`)
	sectors, err := strconv.ParseUint(words[1], 10, 63)
	return none(
		// streams are marked as read only by who writes them
		claim{words[0] == "NOACCESS", refuse("the VMDK's extent may not be read: %q", errs.Clip(line))},
		claim{words[2] != "SPARSE", refuse("the VMDK's extent is of type %q: SPARSE is taken", errs.Clip(words[2]))},
		claim{err != nil || sectors != capacity, refuse("the VMDK says two sizes: %s sectors and %d", errs.Clip(words[1]), capacity)},
		claim{name == "" || strings.ContainsAny(name, "/\\\"\x00"), refuse("the VMDK's descriptor names a file by a path: %q", errs.Clip(name))},
	)
}
