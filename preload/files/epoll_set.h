// An epoll descriptor: a real kernel epoll descriptor, plus an interest list for what is
// ours. While that list is empty a wait is the kernel's.
#pragma once

#include <sys/epoll.h>

#include "preload/files/file.h"
#include "preload/sleep.h"

namespace sluice::preload {

struct Interest {
  void* pool_link = nullptr;
  File* file = nullptr;
  EpollSet* set = nullptr;
  int fd = -1;
  epoll_event wanted{};
  Interest* next_of_file = nullptr;
  Interest* next_of_set = nullptr;
  Interest* next_ready = nullptr;
  bool queued = false;
  bool disabled = false;   // one-shot, and shot
  bool in_kernel = false;  // registered there as well: listeners, nested sets
};

class EpollSet : public File {
 public:
  EpollSet(int own_fd, int registered)
      : File(FileKind::kEpollSet), kernel_fd_(own_fd), kernel_count_(registered) {}

  // epoll_ctl(2) for a descriptor of ours. 0 or -errno.
  int control(int op, int fd, File& f, const epoll_event* event);
  // Counts what the program registers in the kernel's part.
  void note_kernel(int op) { kernel_count_ += op == EPOLL_CTL_ADD ? 1 : op == EPOLL_CTL_DEL ? -1 : 0; }
  // epoll_wait(2). Number of events or -errno.
  int wait(epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask);

  // Whether a wait is the kernel's alone. It may still see a waker: see drop_wakers.
  bool is_kernels() const { return interest_count_.load(std::memory_order_acquire) == 0 && !watched_; }
  // Takes what is not the program's out of `n` events (or passes an error through).
  int drop_wakers(epoll_event* events, int n) const;

  // Under control_lock.
  void queue(Interest& i);
  void forget(Interest& i);
  void forget_all();
  bool has_ready();  // for a set inside a set: whether a wait would find something of ours
  int kernel_fd() const { return kernel_fd_; }
  void adopt_kernel(const Interest& i);
  // The listener at which a wait accepts; shm::kEveryListener: several; 0: none.
  uint32_t accepting();
  void be_watched();  // the set's descriptor itself is polled: the kernel's part must stay pure

 private:
  int collect(epoll_event* events, int max);
  int kernel_events(epoll_event* events, int max);
  int kernel_wait(epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask, uint32_t seen);
  [[nodiscard]] int admit_wakers();
  void renew_interest();
  int merge(epoll_event* events, int kernels, int n) const;
  int sleep(epoll_event* events, int max, const Deadline& deadline, const sigset_t* mask, uint32_t seen);
  Interest* find(const File& f, int fd) const;
  void change(Interest& i, const epoll_event& wanted);

  int kernel_fd_;            // a duplicate of the program's descriptor
  std::atomic<int> kernel_count_;
  std::atomic<uint32_t> interest_count_{0};
  bool watched_ = false;
  uint32_t wakers_epoch_ = 0;
  uint32_t rounds_ = 0;
  uint32_t forks_seen_ = 0;
  uint32_t accepting_ = 0;
  std::atomic<uint32_t> looks_at_{0};  // that, without the lock
  uint32_t listener_changes_seen_ = 0;
  bool full_ = false;                 // the last wait had more to report than it could
  std::atomic<uint32_t> waiters_{0};  // threads that sleep on this set
  Interest* interests_ = nullptr;
  Interest* ready_first_ = nullptr;
  Interest* ready_last_ = nullptr;
  std::atomic<uint32_t> ready_count_{0};
};

// Counts the forks that lead to this process.
extern std::atomic<uint32_t> forks;

// Makes the epoll descriptor ours; `registered`: what the kernel's part holds. Null with -errno in `error` if it is not one.
// Under control_lock; no reference is taken.
EpollSet* wrap_epoll(int epfd, int registered, int& error);

// The socket behind `fd` is now the kernel's: so are the registrations made with it.
void move_interests_to_kernel(File& f, int fd);
// A listener's are in both.
void move_interests_to_both(File& f, int fd);

}  // namespace sluice::preload
