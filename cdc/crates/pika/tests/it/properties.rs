//! What is written reads back, and any bytes are read without a panic.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use takhin_pika::binlog::Item;
use takhin_pika::storage::{blackwidow, floyd, nemo, stream_fields};
use takhin_pika::{Position, command, command::DataType, legacy, resp};

proptest! {
    #[test]
    fn commands_read_back(commands in vec(vec(vec(any::<u8>(), 0..40), 1..6), 1..4)) {
        let mut content = Vec::new();
        for command in &commands {
            resp::put_command(&mut content, command);
        }
        let read = resp::commands(&content.clone().into()).unwrap();
        prop_assert_eq!(read, commands.iter().map(|c| c.iter().map(|w| Bytes::from(w.clone())).collect::<Vec<_>>()).collect::<Vec<_>>());
        // A stream that ends anywhere gives the same commands as far as it goes.
        for cut in 0..content.len() {
            let mut stream = BytesMut::from(&content[..cut]);
            let mut whole = 0;
            while let Some((command, _)) = resp::next_command(&mut stream, 1 << 20).unwrap() {
                prop_assert_eq!(&command, &commands[whole].iter().map(|w| Bytes::from(w.clone())).collect::<Vec<_>>());
                whole += 1;
            }
            prop_assert!(whole < commands.len());
        }
    }

    #[test]
    fn items_read_back(
        exec_time: u32, origin: u32, logic_id: u64, filenum: u32, offset: u64, content in vec(any::<u8>(), 0..200),
    ) {
        let item = Item { exec_time, origin, logic_id, start: Position::new(filenum, offset), content: content.into() };
        prop_assert_eq!(Item::decode(item.encode()).unwrap(), item);
    }

    /// RocksDB relies on it: with an order that is none it loses keys.
    #[test]
    fn the_orders_of_lists_are_orders(keys in vec(vec(0_u8..3, 0..24), 3)) {
        let [a, b, c] = [&keys[0], &keys[1], &keys[2]];
        for compare in [blackwidow::compare_list_keys, floyd::compare_list_keys] {
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
                prop_assert_eq!(compare(a, c).is_eq(), compare(a, b).is_eq() && compare(b, c).is_eq());
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300), exec_time: u32) {
        let shared = Bytes::from(bytes.clone());
        if let Ok(commands) = resp::commands(&shared) {
            for command in commands {
                command::changes(&command, exec_time);
            }
        }
        let _ = Item::decode(shared);
        let mut stream = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = legacy::next_frame(&mut stream, 1 << 20) {}
        let mut stream = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = legacy::next_tagged(&mut stream, 1 << 20) {}
        let mut stream = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = resp::next_answer(&mut stream, 1 << 20) {}
        for data_type in DataType::ALL {
            let _ = blackwidow::meta(data_type, &bytes);
            let _ = nemo::meta(data_type, &bytes);
            let _ = floyd::payload(data_type, &bytes);
        }
        let _ = (blackwidow::string(&bytes), floyd::entry(&bytes), floyd::user_key(&bytes));
        let _ = (floyd::data_prefix(&bytes, 7), nemo::list_node(&bytes), stream_fields(&bytes));
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        prop_assert_eq!(blackwidow::compare_list_keys(half, rest), blackwidow::compare_list_keys(rest, half).reverse());
        prop_assert_eq!(floyd::compare_list_keys(half, rest), floyd::compare_list_keys(rest, half).reverse());
    }
}
