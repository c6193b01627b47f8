#include "preload/user_memory.h"

#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

namespace sluice::preload {

#if defined(__x86_64__)
// int sluice_copy_few(void* to, const void* from, size_t n), n <= 128
//
// Touches no register that is the caller's and keeps nothing on the stack, so the handler ends it by
// returning in its place.
//
// int sluice_copy_many(void* to, const void* from, size_t n)
//
// memcpy, which may be the program's own, behind a frame at sluice_copy_frame (of this thread) that has all registers
// that are the caller's. The handler ends it by going back to that frame.
asm(R"(
.text
.local sluice_copy_few
.type sluice_copy_few, @function
sluice_copy_few:
  cmp $16, %rdx
  ja 3f
  cmp $8, %rdx
  jae 2f
  cmp $4, %rdx
  jae 1f
  test %rdx, %rdx
  je 9f
  movzbl (%rsi), %eax
  movzbl -1(%rsi,%rdx), %ecx
  cmp $3, %rdx
  jne 0f
  movzbl 1(%rsi), %r8d
  movb %r8b, 1(%rdi)
0:
  movb %al, (%rdi)
  movb %cl, -1(%rdi,%rdx)
  jmp 9f
1:
  mov (%rsi), %eax
  mov -4(%rsi,%rdx), %ecx
  mov %eax, (%rdi)
  mov %ecx, -4(%rdi,%rdx)
  jmp 9f
2:
  mov (%rsi), %rax
  mov -8(%rsi,%rdx), %rcx
  mov %rax, (%rdi)
  mov %rcx, -8(%rdi,%rdx)
  jmp 9f
3:
  movups (%rsi), %xmm0
  movups -16(%rsi,%rdx), %xmm1
  cmp $32, %rdx
  jbe 5f
  movups 16(%rsi), %xmm2
  movups -32(%rsi,%rdx), %xmm3
  cmp $64, %rdx
  jbe 4f
  movups 32(%rsi), %xmm4
  movups 48(%rsi), %xmm5
  movups -48(%rsi,%rdx), %xmm6
  movups -64(%rsi,%rdx), %xmm7
  movups %xmm4, 32(%rdi)
  movups %xmm5, 48(%rdi)
  movups %xmm6, -48(%rdi,%rdx)
  movups %xmm7, -64(%rdi,%rdx)
4:
  movups %xmm2, 16(%rdi)
  movups %xmm3, -32(%rdi,%rdx)
5:
  movups %xmm0, (%rdi)
  movups %xmm1, -16(%rdi,%rdx)
9:
  xor %eax, %eax
  ret
.local sluice_copy_few_end
sluice_copy_few_end:
.size sluice_copy_few, . - sluice_copy_few

.local sluice_copy_many
.type sluice_copy_many, @function
sluice_copy_many:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov sluice_copy_frame@gottpoff(%rip), %rbx
  push %fs:(%rbx)
  mov %rsp, %fs:(%rbx)
  call memcpy@PLT
  xor %eax, %eax
.local sluice_copy_back
sluice_copy_back:
  mov sluice_copy_frame@gottpoff(%rip), %rbx
  pop %fs:(%rbx)
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
.size sluice_copy_many, . - sluice_copy_many
)");
extern "C" {
int sluice_copy_few(void*, const void*, size_t) __attribute__((visibility("hidden")));
int sluice_copy_many(void*, const void*, size_t) __attribute__((visibility("hidden")));
extern const char sluice_copy_few_end[] __attribute__((visibility("hidden")));
extern const char sluice_copy_back[] __attribute__((visibility("hidden")));
// Null: no long copy is under way in this thread.
__attribute__((visibility("hidden"), tls_model("initial-exec"))) constinit thread_local greg_t sluice_copy_frame = 0;
}

namespace {
constexpr size_t kFewBytes = 128;
// memcpy is a leaf: its own frame, if it has one, is small.
constexpr greg_t kLeafBytes = 256;
}  // namespace

int copy_user(void* to, const void* from, size_t n) {
  return n <= kFewBytes ? sluice_copy_few(to, from, n) : sluice_copy_many(to, from, n);
}

bool end_faulting_copy(void* context) {
  greg_t* r = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (r[REG_RIP] >= greg_t(&sluice_copy_few) && r[REG_RIP] < greg_t(sluice_copy_few_end)) {
    r[REG_RIP] = *reinterpret_cast<greg_t*>(r[REG_RSP]);
    r[REG_RSP] += greg_t(sizeof(greg_t));
  } else if (greg_t frame = sluice_copy_frame; frame != 0 && r[REG_RSP] < frame && r[REG_RSP] > frame - kLeafBytes) {
    r[REG_RIP] = greg_t(sluice_copy_back);
    r[REG_RSP] = frame;
  } else {
    return false;
  }
  r[REG_RAX] = -EFAULT;
  return true;
}
#else
// Without the assembly a bad pointer ends the process.
int copy_user(void* to, const void* from, size_t n) {
  memcpy(to, from, n);
  return 0;
}
bool end_faulting_copy(void*) { return false; }
#endif

int put_sized(void* to, socklen_t* room, const void* from, socklen_t bytes) {
  socklen_t n;
  int error = get_user(n, room);
  if (error == 0 && int(n) < 0) error = -EINVAL;
  if (error == 0) error = copy_to_user(to, from, n < bytes ? n : bytes);
  return error != 0 ? error : put_user(room, bytes);
}

int probe_vectors(const iovec* vectors, int count, size_t bytes, bool writes) {
  constexpr size_t kPage = 4096;
  int error = 0;
  for (int i = 0; i < count && bytes > 0; ++i) {
    auto* p = static_cast<char*>(vectors[i].iov_base);
    size_t n = vectors[i].iov_len < bytes ? vectors[i].iov_len : bytes;
    bytes -= n;
    char byte;
    for (size_t at = 0; at < n && error == 0; at = at + kPage < n || at == n - 1 ? at + kPage : n - 1)
      error = writes ? copy_to_user(p + at, p + at, 1) : get_user(byte, p + at);
  }
  return error;
}

UserVectors::UserVectors(const iovec* from, size_t count) : count_(count) {
  constexpr size_t kMost = 1024;  // IOV_MAX
  if (count > kMost) {
    error_ = -EINVAL;
    return;
  }
  if (count > sizeof inline_ / sizeof *inline_) vectors_ = static_cast<iovec*>(malloc(count * sizeof *vectors_));
  error_ = vectors_ == nullptr ? -ENOMEM : copy_user(vectors_, from, count * sizeof *vectors_);
}

UserVectors::~UserVectors() {
  if (vectors_ != inline_) free(vectors_);
}

UserMessage::UserMessage(const msghdr* from)
    : m_(), error_(get_user(m_, from)), vectors_(m_.msg_iov, error_ == 0 ? m_.msg_iovlen : 0) {
  if (error_ == 0) error_ = vectors_.error() == -EINVAL ? -EMSGSIZE : vectors_.error();
  m_.msg_iov = vectors_.get();
}

int UserMessage::give_back(msghdr* to) const {
  int error = put_user(&to->msg_namelen, m_.msg_namelen);
  if (error == 0) error = put_user(&to->msg_controllen, m_.msg_controllen);
  return error != 0 ? error : put_user(&to->msg_flags, m_.msg_flags);
}

}  // namespace sluice::preload
