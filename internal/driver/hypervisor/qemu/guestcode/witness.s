# A guest that knows its memory: it fills half a megabyte with a pattern, prints
# "guest ready", and for each byte typed counts one further and tells, as a letter
# and a digit, whether the pattern is whole ("k", else "X") and how far it counted.
# What was lost or made anew shows in one of the two. "!" powers it off.
.code16
.globl _start
_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	movb	$'0', 0x7000		# the count
	mov	$0x1000, %ax
1:	mov	%ax, %es
	xor	%di, %di
2:	mov	%ax, %bx
	xor	%di, %bx
	mov	%bx, %es:(%di)
	add	$2, %di
	jnz	2b
	add	$0x1000, %ax
	cmp	$0x9000, %ax
	jne	1b
	mov	$hello, %si
3:	lodsb
	test	%al, %al
	jz	loop
	call	put
	jmp	3b
loop:
	mov	$0x3fd, %dx		# anything typed?
	in	%dx, %al
	test	$1, %al
	jz	6f
	mov	$0x3f8, %dx
	in	%dx, %al
	cmp	$'!', %al
	je	off
	mov	$'k', %cl
	mov	$0x1000, %ax
4:	mov	%ax, %es
	xor	%di, %di
5:	mov	%ax, %bx
	xor	%di, %bx
	cmp	%bx, %es:(%di)
	je	7f
	mov	$'X', %cl
7:	add	$2, %di
	jnz	5b
	add	$0x1000, %ax
	cmp	$0x9000, %ax
	jne	4b
	mov	%cl, %al
	call	put
	incb	0x7000
	mov	0x7000, %al
	call	put
	mov	$'\n', %al
	call	put
6:	sti				# sleep until the next timer tick or key
	hlt
	cli
	jmp	loop
off:
	mov	$0x604, %dx		# soft off
	mov	$0x2000, %ax
	out	%ax, %dx
	hlt
put:
	push	%ax
	mov	$0x3fd, %dx
8:	in	%dx, %al
	test	$0x20, %al
	jz	8b
	pop	%ax
	mov	$0x3f8, %dx
	out	%al, %dx
	ret
hello:	.asciz	"guest ready\n"
	.org	510
	.word	0xaa55
