//! CRIU's remote procedure calls: the part of its `rpc.proto` that this bridge speaks.
//!
//! Field numbers are CRIU's; fields that are never sent or looked at are left out, which protobuf permits.
#![allow(missing_docs, reason = "the names are those of CRIU's rpc.proto, and its comments stand there")]

use prost::{Enumeration, Message};

/// `criu_req_type`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Enumeration)]
#[repr(i32)]
pub enum Kind {
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
pub struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// `criu_opts`
#[derive(Clone, PartialEq, Message)]
pub struct Options {
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    #[prost(uint32, optional, tag = "35")]
    pub ghost_limit: Option<u32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    /// `criu_network_lock_method`
    #[prost(int32, optional, tag = "64")]
    pub network_lock: Option<i32>,
    #[prost(string, optional, tag = "68")]
    pub images_dir: Option<String>,
}

/// `criu_req`
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub keep_open: Option<bool>,
}

/// `criu_restore_resp`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Restored {
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// `criu_notify`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Notify {
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
}

/// `criu_version`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Version {
    #[prost(int32, required, tag = "1")]
    pub major: i32,
    #[prost(int32, required, tag = "2")]
    pub minor: i32,
    #[prost(int32, optional, tag = "4")]
    pub sublevel: Option<i32>,
}

/// `criu_resp`
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "4")]
    pub restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    #[prost(string, optional, tag = "9")]
    pub message: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub version: Option<Version>,
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
