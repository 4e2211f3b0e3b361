# A guest that changes its memory without end: it prints "guest ready" and writes to
# one page after the other of half a megabyte, about a millisecond apart. What
# is typed it echoes. "!" powers it off.
#
# Before each page it changes a bit of CR0 that means nothing here: emulated processors
# forget then what they know of pages. A QEMU of version 7.2 does not see what they write
# to a page that they know to be written to already.
.code16
.globl _start
_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	mov	$hello, %si
1:	lodsb
	test	%al, %al
	jz	2f
	call	put
	jmp	1b
2:	mov	$0x1000, %bx
3:	mov	%cr0, %eax
	xor	$0x10000, %eax
	mov	%eax, %cr0
	mov	%bx, %es
	incw	%es:0
	rdtsc
	mov	%eax, %ecx
4:	rdtsc
	sub	%ecx, %eax
	cmp	$0x200000, %eax		# by time, so that a fast machine changes no more
	jb	4b
	mov	$0x3fd, %dx		# anything typed?
	in	%dx, %al
	test	$1, %al
	jz	5f
	mov	$0x3f8, %dx
	in	%dx, %al
	cmp	$'!', %al
	je	off
	call	put
5:	add	$0x100, %bx		# a page
	cmp	$0x9000, %bx
	jne	3b
	jmp	2b
off:
	mov	$0x604, %dx		# soft off
	mov	$0x2000, %ax
	out	%ax, %dx
	hlt
put:
	push	%ax
	mov	$0x3fd, %dx
6:	in	%dx, %al
	test	$0x20, %al
	jz	6b
	pop	%ax
	mov	$0x3f8, %dx
	out	%al, %dx
	ret
hello:	.asciz	"guest ready\n"
	.org	510
	.word	0xaa55
