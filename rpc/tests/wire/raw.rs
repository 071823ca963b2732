//! Both ends of connections without the code that the nodes have for them.

use std::net::TcpListener;

use capnp::capability::{Client, FromClientHook};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn system(stream: TcpStream, side: Side, offer: Option<Client>) -> RpcSystem<Side> {
    stream.set_nodelay(true).unwrap();
    let (reader, writer) = tokio::io::split(stream);
    let network = twoparty::VatNetwork::new(reader.compat(), writer.compat_write(), side, Default::default());
    RpcSystem::new(Box::new(network), offer)
}

/// Connects and does something with what the other side offers.
pub fn talk<C: FromClientHook, T>(address: &str, work: impl AsyncFnOnce(C) -> T) -> T {
    LocalSet::new().block_on(&runtime(), async {
        let mut system = system(TcpStream::connect(address).await.unwrap(), Side::Client, None);
        let gate = system.bootstrap(Side::Server);
        tokio::task::spawn_local(system);
        work(gate).await
    })
}

/// Offers something on a port, until the process ends; its address.
pub fn serve(offer: impl Fn() -> Client + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        LocalSet::new().block_on(&runtime(), async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(system(stream, Side::Server, Some(offer())));
            }
        });
    });
    address
}
