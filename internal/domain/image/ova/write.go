package ova

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// Out is a disk that goes into an appliance.
type Out struct {
	// File is its entry's name, Size that file's length, and Bytes what a guest sees.
	File        string
	Size, Bytes int64
}

// Describe writes the description of a machine with its disks.
func Describe(m Machine, disks []Out) []byte {
	var files, sections, items strings.Builder
	id := 4
	for i, d := range disks {
		fmt.Fprintf(&files, "    <File ovf:id=\"file%d\" ovf:href=\"%s\" ovf:size=\"%d\"/>\n", i, text(d.File), d.Size)
		fmt.Fprintf(&sections, "    <Disk ovf:diskId=\"disk%d\" ovf:fileRef=\"file%d\" ovf:capacity=\"%d\" ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>\n", i, i, d.Bytes)
		fmt.Fprintf(&items, `      <Item><rasd:AddressOnParent>%d</rasd:AddressOnParent><rasd:ElementName>disk %d</rasd:ElementName><rasd:HostResource>ovf:/disk/disk%d</rasd:HostResource><rasd:InstanceID>%d</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>%d</rasd:ResourceType></Item>
`, i, i, i, id, typeDisk)
		id++
	}
	for i := range m.NICs {
		fmt.Fprintf(&items, `      <Item><rasd:AddressOnParent>%d</rasd:AddressOnParent><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>nat</rasd:Connection><rasd:ElementName>interface %d</rasd:ElementName><rasd:InstanceID>%d</rasd:InstanceID><rasd:ResourceSubType>VirtIO</rasd:ResourceSubType><rasd:ResourceType>%d</rasd:ResourceType></Item>
`, i, i, id, typeEthernet)
		id++
	}
	if m.UEFI {
		items.WriteString("      <vmw:Config xmlns:vmw=\"http://www.vmware.com/schema/ovf\" ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n")
	}
	return fmt.Appendf(nil, envelopeText, files.String(), sections.String(), text(m.Name), text(m.Name), text(m.Name), m.CPUs, m.CPUs, m.MemoryBytes>>20, m.MemoryBytes>>20, items.String())
}

// text is what may stand in a description.
func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}

const envelopeText = `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
%s  </References>
  <DiskSection>
    <Info>The machine's disks</Info>
%s  </DiskSection>
  <NetworkSection>
    <Info>The networks</Info>
    <Network ovf:name="nat"><Description>A network that leads outside</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="%s">
    <Info>A virtual machine</Info>
    <Name>%s</Name>
    <OperatingSystemSection ovf:id="101"><Info>The guest</Info><Description>Linux</Description></OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>What it is made of</Info>
      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemIdentifier>%s</vssd:VirtualSystemIdentifier><vssd:VirtualSystemType>vmx-07</vssd:VirtualSystemType></System>
      <Item><rasd:ElementName>%d CPUs</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>%d</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>%d MiB of memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>%d</rasd:VirtualQuantity></Item>
      <Item><rasd:ElementName>controller of the disks</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
%s    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`
