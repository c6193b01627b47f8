// When a connection leaves for a program without the shim's memory (exec): it is replaced by
// one end of a kernel socket pair, and a process of ours carries the bytes between that and
// the rings. Slower than either, but it works for any program and loses nothing.
#pragma once

namespace sluice::preload {

// Before exec: every descriptor of ours that will stay open becomes the kernel's. Works in
// a vfork child too, whose memory is its parent's.
void escape_before_exec();

class File;
// A vfork child made `fd` a duplicate of this file.
void note_vfork_copy(int fd, File& f);

}  // namespace sluice::preload
