package disk

import (
	"strings"

	"github.com/novacron/novacron/internal/vocab/unit"
)

// say writes another descriptor into the good VMDK.
func say(old, now string) change {
	return func(b []byte) []byte {
		clear(b[sector : 2*sector])
		copy(b[sector:2*sector], strings.Replace(vmdkText, old, now, 1))
		return b
	}
}

// refoot changes a VHD's footers, both of them if it has two, and sums them.
func refoot(cs ...change) change {
	return func(b []byte) []byte {
		last := len(b) - sector
		all(append(cs, resum(0, sector, vhdChecksum))...)(b[last:])
		if string(b[:8]) == vhdMagic {
			copy(b, b[last:])
		}
		return b
	}
}

// rehead changes a dynamic VHD's header and sums it.
func rehead(cs ...change) change {
	return func(b []byte) []byte {
		all(append(cs, resum(0, dynLength, dynChecksum))...)(b[sector:])
		return b
	}
}

// crafted are, by the good file they are made from, files that must be refused.
func crafted() map[string]map[string]change {
	return map[string]map[string]change{
		"vmdk": craftedVMDK(), "stream": craftedStream(), "fixed": craftedFixed(), "dynamic": craftedDynamic(), "vdi": craftedVDI(), "vhdx": craftedVHDX(),
	}
}

func craftedVMDK() map[string]change {
	return map[string]change{
		"version 0":                     le32(vmdkVersion, 0),
		"version 4":                     le32(vmdkVersion, 4),
		"unknown feature":               le32(vmdkFlags, flagNewline|1<<9),
		"LZ4":                           le32(vmdkFlags, flagNewline|1<<18),
		"size 0":                        le64(vmdkCapacity, 0),
		"size over 64 TiB":              le64(vmdkCapacity, uint64(MaxVirtual/sector)+1),
		"size max":                      le64(vmdkCapacity, 1<<64-1),
		"size that wraps":               le64(vmdkCapacity, 1<<55),
		"size other than the text's":    le64(vmdkCapacity, 128),
		"grains of 0":                   le64(vmdkGrain, 0),
		"grains of 4":                   le64(vmdkGrain, 4),
		"grains of 12":                  le64(vmdkGrain, 12),
		"grains huge":                   le64(vmdkGrain, 1<<40),
		"grains max":                    le64(vmdkGrain, 1<<63),
		"tables of 0":                   le32(vmdkPerTable, 0),
		"tables of 1<<31":               le32(vmdkPerTable, 1<<31),
		"no descriptor":                 le64(vmdkDescriptor, 0),
		"descriptor outside":            le64(vmdkDescriptor, 1<<40),
		"descriptor wraps":              le64(vmdkDescriptor, 1<<55),
		"descriptor of nothing":         le64(vmdkDescriptorN, 0),
		"descriptor huge":               le64(vmdkDescriptorN, 1<<50),
		"descriptor of 65 KiB":          le64(vmdkDescriptorN, 130),
		"directory outside":             le64(vmdkDirectory, 24),
		"directory at 0":                le64(vmdkDirectory, 0),
		"directory wraps":               le64(vmdkDirectory, 1<<55),
		"a footer that is not there":    le64(vmdkDirectory, atEnd),
		"compression unnamed":           text(vmdkCompression, "\x01\x00"),
		"compression 7":                 all(text(vmdkCompression, "\x07\x00"), le32(vmdkFlags, flagNewline|flagCompressed|flagMarkers)),
		"compressed without markers":    all(text(vmdkCompression, "\x01\x00"), le32(vmdkFlags, flagNewline|flagCompressed)),
		"markers alone":                 le32(vmdkFlags, flagNewline|flagMarkers),
		"text transfer":                 text(vmdkNewline, "\n \n\n"),
		"unclean":                       text(vmdkUnclean, "\x01"),
		"unclean of another kind":       text(vmdkUnclean, "\x02"),
		"table outside":                 le32(2*sector, 24),
		"table max":                     le32(2*sector, 1<<32-1),
		"grain outside":                 le32(3*sector, 24),
		"grain that ends outside":       le32(3*sector, 17),
		"grain max":                     le32(3*sector, 1<<32-1),
		"grain in the header":           le32(3*sector, 4),
		"grain 1 without zero grains":   le32(3*sector, 1),
		"one grain for all":             all(le32(3*sector, 8), le32(3*sector+4, 8), le32(3*sector+8, 8), le32(3*sector+12, 8)),
		"text of nothing":               say(vmdkText, ""),
		"text that is none":             say("# Disk DescriptorFile", "# Disc"),
		"a parent":                      say("parentCID=ffffffff", "parentCID=12345678"),
		"a parent's name":               say("\nCID", "\nparentFileNameHint=\"/etc/passwd\"\nCID"),
		"a parent's name, spaced":       say("\nCID", "\n parentFileNameHint = \"base.vmdk\"\nCID"),
		"a parent's name in capitals":   say("\nCID", "\nPARENTFILENAMEHINT=\"base.vmdk\"\nCID"),
		"two parents":                   say("\nCID", "\nparentCID=ffffffff\nCID"),
		"flat":                          say("monolithicSparse", "monolithicFlat"),
		"in several files":              say("monolithicSparse", "twoGbMaxExtentSparse"),
		"of ESX":                        say("monolithicSparse", "vmfs"),
		"a device":                      say("monolithicSparse", "fullDevice"),
		"custom":                        say("monolithicSparse", "custom"),
		"no type":                       say("createType=\"monolithicSparse\"\n", ""),
		"no extent":                     say("RW 64 SPARSE \"disk.vmdk\"\n", ""),
		"two extents":                   say("RW 64 SPARSE \"disk.vmdk\"", "RW 64 SPARSE \"disk.vmdk\"\nRW 64 SPARSE \"other.vmdk\""),
		"a flat extent of another file": say("RW 64 SPARSE \"disk.vmdk\"", "RW 64 FLAT \"/etc/shadow\" 0"),
		"an extent and a flat one":      say("RW 64 SPARSE", "RW 64 FLAT \"/etc/shadow\" 0\nRW 64 SPARSE"),
		"an extent's path":              say("disk.vmdk", "/etc/passwd"),
		"an extent's path up":           say("disk.vmdk", "../disk.vmdk"),
		"an extent's path of Windows":   say("disk.vmdk", "C:\\disk.vmdk"),
		"an extent without a name":      say("\"disk.vmdk\"", "\"\""),
		"an extent cut short":           say("RW 64 SPARSE \"disk.vmdk\"", "RW 64"),
		"an extent of another size":     say("RW 64", "RW 65"),
		"an extent of no size":          say("RW 64", "RW x"),
		"an extent nobody may read":     say("RW 64", "NOACCESS 64"),
		"a line that is none":           say("version=1", "version"),
	}
}

func craftedStream() map[string]change {
	const foot, grain = 9 * sector, 2 * sector
	return map[string]change{
		"no end":                     text(10*sector+8, "\x01"),
		"more behind it":             func(b []byte) []byte { return append(b, make([]byte, sector)...) },
		"no mark of the footer":      le32(8*sector+12, 2),
		"footer of another disk":     le64(foot+vmdkCapacity, 65),
		"footer with other grains":   le64(foot+vmdkGrain, 64),
		"footer with other features": le32(foot+vmdkFlags, flagNewline),
		"footer without a directory": le64(foot+vmdkDirectory, atEnd),
		"footer's directory outside": le64(foot+vmdkDirectory, 1<<40),
		"footer that is none":        text(foot, "KDMX"),
		"a grain of another place":   le64(grain, 128),
		"a grain of nothing":         le32(grain+8, 0),
		"a grain of 4 GiB":           le32(grain+8, 1<<32-1),
		"a grain cut short":          le32(grain+8, 20),
		"a grain that is not packed": text(grain+12, "no zlib at all"),
		"a grain that is damaged":    text(grain+20, "\xff\xff\xff\xff\xff\xff"),
		"a grain that is too little": func([]byte) []byte { return streamOf(words(63 * sector)) },
		"a grain that is too much":   func([]byte) []byte { return streamOf(words(129 * sector)) },
		"a grain that is a bomb":     func([]byte) []byte { return streamOf(make([]byte, 300*1024)) },
		"a grain at the end of it":   le32(3*sector, 10),
		"a grain in the header":      le32(3*sector, 0xffffff),
		"a parent":                   text(sector+len("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID="), "00000001"),
	}
}

func craftedFixed() map[string]change {
	return map[string]change{
		"sum":              text(len(goodFixed())-sector+vhdChecksum, "\x00\x00\x00\x00"),
		"version 2":        refoot(be32(vhdVersion, 0x00020000)),
		"features":         refoot(be32(vhdFeatures, 1<<31|2)),
		"type 0":           refoot(be32(vhdType, 0)),
		"type 1":           refoot(be32(vhdType, 1)),
		"a parent":         refoot(be32(vhdType, vhdDiffers)),
		"type 5":           refoot(be32(vhdType, 5)),
		"dynamic":          refoot(be32(vhdType, vhdDynamic)),
		"larger than it":   refoot(be64(vhdBytes, 64*1024+512)),
		"size 0":           refoot(be64(vhdBytes, 0)),
		"size odd":         refoot(be64(vhdBytes, 1000)),
		"size over 64 TiB": refoot(be64(vhdBytes, uint64(MaxVirtual)+512)),
		"size max":         refoot(be64(vhdBytes, 1<<64-512)),
		"more behind it":   func(b []byte) []byte { return append(b, make([]byte, sector)...) },
	}
}

func craftedDynamic() map[string]change {
	return map[string]change{
		"header's sum":                text(sector+dynChecksum, "\x00\x00\x00\x00"),
		"header's mark":               rehead(text(0, "cxsparsX")),
		"header's version":            rehead(be32(dynVersion, 0x00020000)),
		"header outside":              refoot(be64(vhdData, 1<<40)),
		"header max":                  refoot(be64(vhdData, 1<<64-1)),
		"header in the footer":        refoot(be64(vhdData, 0)),
		"footers that differ":         text(100, "x"),
		"a parent":                    rehead(text(dynParent, "0123456789abcdef")),
		"a parent by type":            refoot(be32(vhdType, vhdDiffers)),
		"blocks of 0":                 rehead(be32(dynBlock, 0)),
		"blocks of 1 KiB":             rehead(be32(dynBlock, 1024)),
		"blocks of 5000":              rehead(be32(dynBlock, 5000)),
		"blocks of 2 GiB":             rehead(be32(dynBlock, 1<<31)),
		"table outside":               rehead(be64(dynTable, 1<<40)),
		"table max":                   rehead(be64(dynTable, 1<<64-1)),
		"table in the footer":         rehead(be64(dynTable, 0)),
		"table short":                 rehead(be32(dynEntries, 1)),
		"table none":                  rehead(be32(dynEntries, 0)),
		"size that needs more blocks": refoot(be64(vhdBytes, 16384)),
		"size huge":                   refoot(be64(vhdBytes, uint64(MaxVirtual))),
		"a block outside":             be32(1540, 1000),
		"a block max":                 be32(1540, vhdUnused-1),
		"a block at 0":                be32(1540, 0),
		"one block twice":             be32(1536, 4),
	}
}

func craftedVDI() map[string]change {
	return map[string]change{
		"version 0":             le32(vdiVersion, 0x00000001),
		"version 2":             le32(vdiVersion, 0x00020000),
		"type 0":                le32(vdiType, 0),
		"an undo disk":          le32(vdiType, 3),
		"a difference":          le32(vdiType, 4),
		"a link":                text(vdiLink, "0123456789abcdef"),
		"a parent":              text(vdiLink+16, "0123456789abcdef"),
		"sectors of 4096":       le32(vdiSector, 4096),
		"blocks of 0":           le32(vdiBlock, 0),
		"blocks of 2 MiB":       le32(vdiBlock, 2<<20),
		"blocks with more":      le32(vdiExtra, 512),
		"size 0":                le64(vdiBytes, 0),
		"size over 64 TiB":      le64(vdiBytes, uint64(MaxVirtual)+1),
		"size max":              le64(vdiBytes, 1<<64-1),
		"size of more blocks":   le64(vdiBytes, uint64(4*unit.MiB)),
		"too few blocks":        le32(vdiBlocks, 2),
		"too many blocks":       le32(vdiBlocks, 1<<32-1),
		"more than all blocks":  le32(vdiAllocated, 4),
		"table in the header":   le32(vdiTable, 0),
		"table odd":             le32(vdiTable, 600),
		"table outside":         le32(vdiTable, 1<<31),
		"data in the table":     le32(vdiData, 512),
		"data odd":              le32(vdiData, 1025),
		"data outside":          le32(vdiData, 1<<31),
		"a block that is not":   le32(516, 1),
		"a block far away":      le32(516, 1<<31),
		"a block max":           le32(516, vdiDiscarded-1),
		"one block three times": all(le32(512, 0), le32(520, 0)),
	}
}

func craftedVHDX() map[string]change {
	h1, h2, r1, r2 := int(vhdxHeader1), int(vhdxHeader2), int(vhdxRegions1), int(vhdxRegions2)
	both := func(cs ...change) change {
		return func(b []byte) []byte { all(cs...)(b[r1:]); all(cs...)(b[r2:]); return tables(b) }
	}
	// the values: parameters, bytes, page 83, sector, physical sector
	const values = vhdxMeta + 65536
	return map[string]change{
		"headers damaged":           all(text(h1+100, "x"), text(h2+100, "x")),
		"headers none":              all(text(h1, "none"), text(h2, "none"), headers),
		"version 2":                 all(text(h1+66, "\x02"), text(h2+66, "\x02"), headers),
		"a log":                     all(text(h2+48, "0123456789abcdef"), headers),
		"a log, in the first":       all(le64(h1+8, 9), text(h1+48, "0123456789abcdef"), headers),
		"regions damaged":           all(text(r1+100, "x"), text(r2+100, "x")),
		"regions without end":       both(le32(8, 1<<32-1)),
		"regions one too many":      both(le32(8, maxRegions+1)),
		"a region alone":            both(le32(8, 1)),
		"a region that is unknown":  both(text(16, "0123456789abcdef")),
		"a region twice":            both(text(48, string(regionTable[:]))),
		"a region outside":          both(le64(32, 1<<40)),
		"a region max":              both(le64(32, 1<<64-1<<20)),
		"a region odd":              both(le64(32, uint64(vhdxTable)+512)),
		"a region in the header":    both(le64(32, 0)),
		"a region that ends behind": both(le32(40, 1<<31)),
		"table too short":           both(le32(40, 8)),
		"metadata too short":        both(le32(72, 4096)),
		"metadata none":             text(vhdxMeta, "metaXata"),
		"items without end":         text(vhdxMeta+10, "\xff\xff"),
		"an item twice":             text(itemAt(1), string(itemParameters[:])),
		"an item that is unknown":   text(itemAt(2), "0123456789abcdef"),
		"an item outside":           le32(itemAt(1)+16, uint32(unit.MiB)),
		"an item max":               le32(itemAt(1)+16, 1<<32-1),
		"an item in the table":      le32(itemAt(1)+16, 32),
		"an item too long":          le32(itemAt(1)+20, 16),
		"no size":                   text(itemAt(1), string(itemPage83[:])+"\x00"),
		"a parent":                  text(itemAt(2), string(itemParent[:])),
		"a parent by flag":          le32(values+4, 2),
		"blocks of 0":               le32(values, 0),
		"blocks of 3 MiB":           le32(values, 3<<20),
		"blocks of 512 MiB":         le32(values, 512<<20),
		"size 0":                    le64(values+8, 0),
		"size odd":                  le64(values+8, 1000),
		"size over 64 TiB":          le64(values+8, uint64(MaxVirtual)+512),
		"size max":                  le64(values+8, 1<<64-512),
		"size of more blocks":       le64(values+8, uint64(MaxVirtual)),
		"sectors of 1024":           le32(values+32, 1024),
		"a block of a parent":       le64(vhdxTable+8, 3<<20|7),
		"a block in state 4":        le64(vhdxTable+8, 3<<20|4),
		"a block at 0":              le64(vhdxTable+8, blockPresent),
		"a block outside":           le64(vhdxTable+8, 5<<20|blockPresent),
		"a block max":               le64(vhdxTable+8, 1<<64-1<<20|blockPresent),
		"one block for all":         all(le64(vhdxTable, 3<<20|blockPresent), le64(vhdxTable+16, 3<<20|blockPresent), cutBudget),
	}
}

// cutBudget adds entries until they are more than the file has room for.
func cutBudget(b []byte) []byte {
	all(le64(vhdxMeta+65536+8, uint64(8*unit.MiB)))(b)
	for i := range 8 {
		le64(vhdxTable+8*i, 3<<20|blockPresent)(b)
	}
	return b
}
