# The guest that proves an accelerator: one boot sector that a usable one ends
# within a second, after the firmware brought it up.
#
# Each step writes a letter to COM1, so that a proof that does not end says how
# far it came:
#   R real mode is reached; I two timer interrupts came; P protected mode is
#   reached; p it counted there; L long mode with paging is reached; l it counted
#   there; C 16 MiB were copied. Then 0x10 to port 0xf4, which ends the machine
#   with exit code 33 through the isa-debug-exit device.
#
# The counting matters: there are hosts whose /dev/kvm opens and whose guests are
# emulated instruction by instruction outside of the one mode they support. Such
# a host boots this sector and then counts for half a minute, where silicon and
# even TCG take a tenth of a second.
.equ	COUNT, 20000000
.code16
.globl _start
_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$0x7000, %sp
	mov	$'R', %al
	mov	$0x3f8, %dx
	out	%al, %dx
	mov	0x46c, %bl		# the firmware counts timer ticks here
	mov	$2, %cx
1:	sti
	hlt
	cli
	cmp	0x46c, %bl
	je	1b
	mov	0x46c, %bl
	loop	1b
	mov	$'I', %al
	mov	$0x3f8, %dx
	out	%al, %dx
	lgdt	gdtr
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmp	$8, $protected
.code32
protected:
	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$'P', %al
	mov	$0x3f8, %dx
	out	%al, %dx
	mov	$COUNT, %ecx
2:	dec	%ecx
	jnz	2b
	mov	$'p', %al
	out	%al, %dx
	mov	$0x10000, %edi		# page tables: 1 GiB as it is, in 2 MiB pages
	xor	%eax, %eax
	mov	$0x3000/4, %ecx
	cld
	rep stosl
	movl	$0x11003, 0x10000
	movl	$0x12003, 0x11000
	mov	$0x12000, %edi
	mov	$0x83, %eax
	mov	$512, %ecx
3:	mov	%eax, (%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	3b
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	$0x10000, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	ljmp	$24, $long
.code64
long:
	mov	$0x3f8, %dx
	mov	$'L', %al
	out	%al, %dx
	mov	$COUNT, %ecx
4:	dec	%ecx
	jnz	4b
	mov	$'l', %al
	out	%al, %dx
	mov	$0x200000, %esi
	mov	$0x1200000, %edi
	mov	$0x1000000/8, %ecx
	rep movsq
	mov	$'C', %al
	out	%al, %dx
	mov	$0xf4, %dx
	mov	$0x10, %al
	out	%al, %dx
5:	hlt
	jmp	5b
	.balign	8
gdt:	.quad	0
	.quad	0x00cf9a000000ffff
	.quad	0x00cf92000000ffff
	.quad	0x00af9a000000ffff
gdtr:	.word	. - gdt - 1
	.long	gdt
	.org	510
	.word	0xaa55
