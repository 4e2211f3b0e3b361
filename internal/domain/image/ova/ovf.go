package ova

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"

	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	maxDepth    = 32
	maxElements = 20000
)

// envelope is the part of OVF that is read. Names match in any namespace.
type envelope struct {
	XMLName xml.Name      `xml:"Envelope"`
	Files   []ovfFile     `xml:"References>File"`
	Disks   []ovfDisk     `xml:"DiskSection>Disk"`
	Systems []ovfSystem   `xml:"VirtualSystem"`
	Many    *xmlAnything  `xml:"VirtualSystemCollection"`
	Shared  []xmlAnything `xml:"SharedDiskSection"`
}

type xmlAnything struct{}

type ovfFile struct {
	ID          string `xml:"id,attr"`
	Href        string `xml:"href,attr"`
	Compression string `xml:"compression,attr"`
	ChunkSize   string `xml:"chunkSize,attr"`
}

type ovfDisk struct {
	ID       string `xml:"diskId,attr"`
	File     string `xml:"fileRef,attr"`
	Capacity string `xml:"capacity,attr"`
	Units    string `xml:"capacityAllocationUnits,attr"`
	Parent   string `xml:"parentRef,attr"`
}

type ovfSystem struct {
	ID       string      `xml:"id,attr"`
	Name     string      `xml:"Name"`
	Hardware []hardware  `xml:"VirtualHardwareSection"`
	Box      *boxMachine `xml:"Machine"`
}

type hardware struct {
	Items  []item   `xml:"Item"`
	Disks  []item   `xml:"StorageItem"`
	Ports  []item   `xml:"EthernetPortItem"`
	Config []config `xml:"Config"`
}

// item is one device.
type item struct {
	Type     int    `xml:"ResourceType"`
	ID       string `xml:"InstanceID"`
	Parent   string `xml:"Parent"`
	Address  int    `xml:"AddressOnParent"`
	Host     string `xml:"HostResource"`
	Quantity int64  `xml:"VirtualQuantity"`
	Units    string `xml:"AllocationUnits"`
	Name     string `xml:"ElementName"`
}

type config struct {
	Key   string `xml:"key,attr"`
	Value string `xml:"value,attr"`
}

// boxMachine is VirtualBox's own section.
type boxMachine struct {
	Firmware struct {
		Type string `xml:"type,attr"`
	} `xml:"Hardware>Firmware"`
	BIOS struct {
		Firmware struct {
			Type string `xml:"type,attr"`
		} `xml:"Firmware"`
	} `xml:"Hardware>BIOS"`
}

// parse reads a description, strictly and within bounds.
func parse(name string, text []byte) (envelope, error) {
	var e envelope
	if err := bounded(text); err != nil {
		return e, unsafeEntry(name, err.Error())
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = plainCharset
	if err := d.Decode(&e); err != nil {
		return e, errs.New(errs.InvalidImage, "the description %q is no OVF: %s", errs.Clip(name), errs.Clip(err.Error())).Because(err)
	}
	return e, nil
}

func plainCharset(charset string, in io.Reader) (io.Reader, error) {
	return nil, errors.New("its characters are " + errs.Clip(charset) + ", not UTF-8")
}

// bounded looks at the elements before any is given a meaning.
func bounded(text []byte) error {
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = plainCharset
	depth, elements := 0, 0
	for {
		t, err := d.RawToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errors.New("is no XML")
		}
		switch t.(type) {
		case xml.Directive:
			return errors.New("has a document type, which no description needs")
		case xml.StartElement:
			depth, elements = depth+1, elements+1
		case xml.EndElement:
			depth--
		}
		if depth > maxDepth || elements > maxElements {
			return errors.New("is nested too deep, or has too many elements")
		}
	}
}
