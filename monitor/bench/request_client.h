// A client of the coordinator that only makes requests: what the shim does in an application, without one.
#pragma once

#include <string>

#include "monitor/descriptor.h"
#include "monitor/mapping.h"
#include "shm/layout.h"
#include "shm/request_queues.h"

namespace sluice::monitor::bench {

class RequestClient {
 public:
  // Registers with the coordinator of `directory`. What went wrong, or empty.
  std::string connect(const std::string& directory);
  // False: the queue is full. What is sent is sure to be seen after flush(), which rings if the coordinator
  // sleeps: several requests for one fence.
  [[nodiscard]] bool try_send(const shm::Message& m) { return requests_.try_stage(m); }
  void flush();
  [[nodiscard]] bool try_receive(shm::Message& m) { return requests_.try_receive(m); }

 private:
  std::string say_hello(const std::string& directory);
  std::string take_welcome();

  Descriptor socket_, bell_, hearing_, coordinators_bell_;
  Mapping<shm::ClientRegion> region_;
  Mapping<const shm::ReplyRegion> reply_region_;
  Mapping<const shm::Directory> directory_;
  Mapping<shm::SharedQueueRegion> queue_;
  shm::RequestQueues requests_;
};

}  // namespace sluice::monitor::bench
