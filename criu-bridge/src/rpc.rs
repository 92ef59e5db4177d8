//! CRIU's remote procedure calls: the part of its `rpc.proto` that this bridge speaks.
//!
//! Field numbers are CRIU's; fields that are never sent or looked at are left out, which protobuf permits.

use prost::{Enumeration, Message};

/// `criu_req_type`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    /// Nothing; CRIU's answer to what it does not understand.
    Empty = 0,
    /// Write a tree's images.
    Dump = 1,
    /// Build a tree from its images.
    Restore = 2,
    /// CRIU waits for leave to go on.
    Notify = 6,
    /// Say the version.
    Version = 10,
}

/// `inherit_fd`
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(int32, required, tag = "2")]
    pub(crate) fd: i32,
}

/// `criu_opts`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(int32, required, tag = "1")]
    pub(crate) images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub(crate) file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub(crate) log_file: Option<String>,
    #[prost(bool, optional, tag = "12")]
    pub(crate) notify_scripts: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub(crate) work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub(crate) link_remap: Option<bool>,
    #[prost(bool, optional, tag = "26")]
    pub(crate) rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub(crate) inherit_fd: Vec<InheritFd>,
    #[prost(uint32, optional, tag = "35")]
    pub(crate) ghost_limit: Option<u32>,
    #[prost(string, repeated, tag = "37")]
    pub(crate) external: Vec<String>,
    #[prost(bool, optional, tag = "48")]
    pub(crate) lazy_pages: Option<bool>,
}

/// `criu_req`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) notify_success: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) keep_open: Option<bool>,
}

/// `criu_restore_resp`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Restored {
    #[prost(int32, required, tag = "1")]
    pub(crate) pid: i32,
}

/// `criu_version`
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Version {
    #[prost(int32, required, tag = "1")]
    pub(crate) major: i32,
    #[prost(int32, required, tag = "2")]
    pub(crate) minor: i32,
    #[prost(int32, optional, tag = "4")]
    pub(crate) sublevel: Option<i32>,
}

/// `criu_resp`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(bool, required, tag = "2")]
    pub(crate) success: bool,
    #[prost(message, optional, tag = "4")]
    pub(crate) restore: Option<Restored>,
    #[prost(int32, optional, tag = "7")]
    pub(crate) errno: Option<i32>,
    #[prost(string, optional, tag = "9")]
    pub(crate) message: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub(crate) version: Option<Version>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_proto_file() {
        let options =
            Options { images_dir_fd: 3, pid: Some(5), lazy_pages: Some(true), ..Options::default() };
        let request = Request { kind: Kind::Dump.into(), options: Some(options), ..Request::default() };
        assert_eq!(request.encode_to_vec(), [8, 1, 18, 7, 8, 3, 16, 5, 128, 3, 1]);
    }

    #[test]
    fn an_answer_with_fields_that_nobody_looks_at_is_read() {
        let bytes = [8, 1, 16, 0, 56, 2, 74, 3, b'b', b'a', b'd', 88, 1];
        let response = Response::decode(bytes.as_slice()).expect("well formed");
        assert_eq!(
            (response.success, response.errno, response.message),
            (false, Some(2), Some("bad".into()))
        );
    }
}
